import pytest
import torch

from terralean.layers.hooks import Hooks, Setting, Stream, alive_on_grid, all_tokens, drop
from terralean.layers.running import arranged, padded, run_layer
from terralean.models.vit import ViTEncoder, _parts


def setting(execution: str, *, prefix: int = 0) -> Setting:
    return Setting(
        grid=(3, 4),
        prefix=prefix,
        depth=6,
        classes=2,
        execution=execution,
        training=False,
        done=None,
        seeds=list,
        heads={},
    )


def tokens(*, rows: int = 12) -> torch.Tensor:
    return torch.arange(1.0, 2 * rows * 3 + 1).view(2, rows, 3)


def first(counts: list[int], rows: int) -> torch.Tensor:
    """Every other token at most, different ones in each image."""
    order = torch.rand(2, rows, generator=torch.Generator().manual_seed(rows)).argsort(dim=1).argsort(dim=1)
    return order < torch.tensor(counts)[:, None]


def test_dropping_twice_leaves_the_same_tokens_gathered_or_not():
    chosen, again = first([7, 9], 12), first([3, 6], 12)
    masked = drop(drop(Stream(tokens()), chosen, setting=setting("masked")), again, setting=setting("masked"))
    gathered = drop(Stream(tokens(), size=tokens()[..., 0]), chosen, setting=setting("packed"))
    gathered = drop(gathered, again.gather(1, gathered.place), setting=setting("packed"))
    expected = (chosen & again).view(2, 3, 4)
    assert torch.equal(alive_on_grid(masked, setting=setting("masked")), expected)
    assert torch.equal(alive_on_grid(gathered, setting=setting("packed")), expected)
    assert torch.equal(gathered.size[gathered.there], tokens()[..., 0][chosen & again])
    assert gathered.x.shape[1] == int(expected.sum(dim=(1, 2)).max())


def test_all_tokens_are_as_last_seen():
    """Tokens count the steps that they were on their way for."""
    stream = Stream(torch.zeros(2, 12, 1))
    chosen, again = first([7, 9], 12), first([5, 8], 12)
    stream = drop(stream._replace(x=stream.x + 1), chosen, setting=setting("packed"))
    stream = drop(stream._replace(x=stream.x + 1), again.gather(1, stream.place), setting=setting("packed"))
    stream = stream._replace(x=stream.x + 1)
    assert torch.equal(all_tokens(stream)[..., 0], 1.0 + chosen + (chosen & again))


def test_class_tokens_are_no_part_of_the_grid():
    stream = drop(Stream(tokens(rows=13)), first([4, 5], 13), setting=setting("padded", prefix=1))
    alive = alive_on_grid(stream, setting=setting("padded", prefix=1))
    assert torch.equal(alive.flatten(1), first([4, 5], 13)[:, 1:])


@pytest.mark.parametrize("lengths", [[12, 5], [4, 4], [1, 0]])
def test_packed_and_back_is_nothing(lengths):
    there = first(lengths, 12)
    stream = Stream(tokens() * there[..., None], there=there, size=tokens()[..., 0] * there)
    back = padded(arranged(stream, "packed"))
    assert torch.equal(back.x, stream.x)
    assert torch.equal(back.size, stream.size)


@pytest.mark.parametrize("execution", ["packed", "padded"])
def test_a_token_of_size_two_is_attended_to_as_two_that_are_alike(execution):
    torch.manual_seed(0)
    encoder = ViTEncoder(
        "test_vit", bands=3, image_px=160, drop_path=0.0, class_token_in_sequence=False, final_norm=False
    ).eval()
    parts, x = _parts(encoder.body.blocks[0]), 3 * torch.randn(1, 4, 64)
    twice = Stream(torch.cat([x, x[:, :1]], dim=1))
    size, there = torch.tensor([[2.0, 1, 1, 1, 1]]), torch.tensor([[True] * 4 + [False]])
    once = Stream(torch.cat([x, torch.randn(1, 1, 64)], dim=1), there=there, size=size)
    with torch.inference_mode():
        expected = run_layer(parts, arranged(twice, execution), Hooks(), layer=1, execution=execution).stream.x
        found = padded(run_layer(parts, arranged(once, execution), Hooks(), layer=1, execution=execution)).x
        alone = run_layer(parts, arranged(Stream(x), execution), Hooks(), layer=1, execution=execution).stream.x
    torch.testing.assert_close(found[:, :4], expected[:, :4])
    assert float((alone - expected[:, :4]).abs().max()) > 1e-3

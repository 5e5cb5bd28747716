from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import ConfigError
from terralean.layers.hooks import Seen, Setting, Stream
from terralean.models import create
from terralean.models.reducers import hooks_of
from terralean.models.segvit import SegViT, SegViTConfig
from terralean.tokens.algm import ALGMConfig
from terralean.tokens.elvit import ELViTConfig
from terralean.tokens.sparsevit import SparseViTConfig
from terralean.tokens.tome import ToMeConfig, match
from weights import image

GRID, TOKENS = (4, 6), 24
METHODS = {
    "tome": ToMeConfig(r=5),
    "tome, as many as there are": ToMeConfig(r=(3, 0, 4, 0, 2, 0), proportional=False),
    "tome by sublayer": ToMeConfig(mode="sublayer", fraction=0.3),
    "algm": ALGMConfig(threshold=0.0, after=(1, 3)),
    "elvit": ELViTConfig(after=(2,), side=0.5, temperature=0.5),
}
every_method = pytest.mark.parametrize("method", METHODS)
with_and_without_class = pytest.mark.parametrize("class_token", [False, True])


def toy(reduce: Any = None, *, class_token: bool = False, **changes: Any) -> SegViT:
    """Six layers of width 64, whose weights are large enough for tokens to differ."""
    torch.manual_seed(0)
    settings = {"backbone": "test_vit", "image_px": 64, "drop_path": 0.0, "class_token_in_sequence": class_token, **changes}
    decoder = {"decoder_width": 24, "decoder_layers": 1, "decoder_heads": 2}
    model = SegViT(SegViTConfig(bands=3, classes=4, **decoder, **settings))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    model.reduce_tokens(reduce)
    return model.eval()


def picture(images: int = 3, *, grid: tuple[int, int] = GRID, seed: int = 0) -> Tensor:
    """Images of 16 px a token whose parts are unlike, so that they decide differently."""
    rows, columns = grid
    coarse = torch.from_numpy(image(seed, (images, 3, rows // 2, columns // 2)))
    smooth = F.interpolate(coarse, size=(16 * rows, 16 * columns), mode="bilinear", align_corners=False)
    contrast = torch.linspace(0.5, 3, images).view(-1, 1, 1, 1)
    return contrast * smooth + 0.3 * torch.from_numpy(image(seed + 1, (images, 3, 16 * rows, 16 * columns)))


def setting_of(grid: tuple[int, int], *, prefix: int) -> Setting:
    return Setting(
        grid=grid,
        prefix=prefix,
        depth=6,
        classes=4,
        execution="packed",
        training=False,
        done=None,
        seeds=list,
        heads={},
    )


def tokens_of(model: SegViT, x: Tensor) -> tuple[Tensor, Stream]:
    """What the encoder gives the decoder, (B, N, C), and how its last layer left it."""
    start = model.backbone.embed(x)
    setting = setting_of(start.grid, prefix=model.backbone.prefix)
    hooks = hooks_of(model.reduce, setting)
    end = model.backbone.run(Stream(start.x, start.there), hooks, execution="packed")
    return hooks.restore(end), end


@with_and_without_class
@pytest.mark.parametrize(
    "nothing",
    [
        ToMeConfig(r=0),
        ToMeConfig(mode="sublayer", fraction=0.0),
        ALGMConfig(threshold=1.01, after=(1,)),
        ELViTConfig(after=(2,), side=1.0, iterations=0, nearest=1),
    ],
    ids=lambda config: config.method,
)
def test_nothing_to_merge_is_the_dense_network(nothing, class_token):
    with torch.no_grad():
        dense = toy(class_token=class_token)(picture())
        same = toy(nothing, class_token=class_token)(picture())
    torch.testing.assert_close(same, dense, rtol=1e-5, atol=1e-5)


@every_method
@with_and_without_class
def test_a_method_changes_the_scores_and_keeps_their_shape(method, class_token):
    with torch.no_grad():
        dense, reduced = toy(class_token=class_token)(picture()), toy(METHODS[method], class_token=class_token)(picture())
    assert reduced.shape == dense.shape
    assert (reduced - dense).abs().max() > 1e-3


@every_method
@with_and_without_class
def test_one_image_does_not_depend_on_the_others(method, class_token):
    model, x = toy(METHODS[method], class_token=class_token), picture(4)
    with torch.no_grad():
        together, record = model(x), model.trace(x)
        for i in range(4):
            torch.testing.assert_close(together[i : i + 1], model(x[i : i + 1]), rtol=1e-4, atol=1e-4)
            for point, alone in zip(record, model.trace(x[i : i + 1]), strict=True):
                assert torch.equal(point.group[i], alone.group[0])
                assert point.left[i] == alone.left[0]


def test_published_algm_lets_the_batch_decide():
    x = picture(4)
    with torch.no_grad():
        own = toy(ALGMConfig(threshold=0.3, after=(1, 3))).trace(x)
        batch = toy(ALGMConfig(threshold=0.3, after=(1, 3), count="batch")).trace(x)
    assert all(len(point.left.unique()) > 1 for point in own)
    assert batch[0].left.tolist() == [own[0].left.max()] * 4
    assert len(batch[1].left.unique()) == 1


@every_method
@pytest.mark.parametrize("execution", ["padded", "masked"])
def test_ways_of_running_a_batch_agree(method, execution):
    with torch.no_grad():
        packed = toy(METHODS[method])(picture())
        other = toy(METHODS[method], execution=execution)(picture())
    torch.testing.assert_close(other, packed, rtol=1e-4, atol=1e-4)


@with_and_without_class
@pytest.mark.parametrize("method", ["tome", "algm"])
def test_members_of_a_group_come_back_as_copies(method, class_token):
    model, x = toy(METHODS[method], class_token=class_token), picture()
    with torch.no_grad():
        tokens, end = tokens_of(model, x)
    group = end.record[-1].group.flatten(1)
    for image_tokens, rows, image_group, left in zip(tokens, end.x, group, end.record[-1].left, strict=True):
        assert torch.equal(image_tokens[class_token:], rows[image_group])
        assert len(image_group.unique()) == left
        assert class_token == (0 not in image_group)


def test_tokens_made_of_clusters_are_their_weighted_means():
    with torch.no_grad():
        tokens, end = tokens_of(toy(METHODS["elvit"]), picture())
    torch.testing.assert_close(tokens, end.memory @ end.x)
    torch.testing.assert_close(end.memory.sum(dim=2), torch.ones(3, TOKENS))
    assert end.x.shape[1] == 6
    assert end.record[0].left.tolist() == [6] * 3


@with_and_without_class
def test_tome_leaves_as_many_tokens_as_it_is_told(class_token):
    record = toy(METHODS["tome"], class_token=class_token).trace(picture())
    assert [point.layer for point in record] == [1, 2, 3, 4, 5, 6]
    assert [point.left.unique().tolist() for point in record] == [[19], [14], [9], [5], [3], [2]]
    record = toy(METHODS["tome, as many as there are"], class_token=class_token).trace(picture())
    assert [(point.layer, *point.left.unique().tolist()) for point in record] == [(1, 21), (3, 17), (5, 15)]


def by_hand(model: SegViT, x: Tensor, *, r: int, proportional: bool) -> Tensor:
    """Layers of ToMe written out for one image."""
    tokens = model.backbone.embed(x).x
    group, size = torch.arange(tokens.shape[1]), torch.ones(tokens.shape[1])
    for block in model.backbone.body.blocks:
        y = block.norm1(tokens)
        q, k, v = block.attn.qkv(y).unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) * block.attn.scale + (size.log() if proportional else 0)
        tokens = tokens + block.ls1(block.attn.proj((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)))
        found = match(k.mean(dim=1), r=r).group[0]
        count = int(found.max()) + 1
        tokens = torch.stack(
            [(tokens[0, found == i] * size[found == i, None]).sum(0) / size[found == i].sum() for i in range(count)]
        )[None]
        size = torch.stack([size[found == i].sum() for i in range(count)])
        group = found[group]
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    return tokens[:, group]


@pytest.mark.parametrize("proportional", [False, True])
def test_tome_merges_by_keys_between_attention_and_feed_forward(proportional):
    model, x = toy(ToMeConfig(r=4, proportional=proportional)), picture(1)
    with torch.no_grad():
        torch.testing.assert_close(tokens_of(model, x)[0], by_hand(model, x, r=4, proportional=proportional))


def test_every_sublayer_is_spared_its_share_of_tokens():
    seen = []
    model = toy(METHODS["tome by sublayer"])
    for block in model.backbone.body.blocks:
        for part in (block.attn.qkv, block.mlp.fc1):
            part.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    model(picture())
    assert seen == [TOKENS - int(0.3 * TOKENS)] * 12


@pytest.mark.parametrize("config", [METHODS["algm"], ToMeConfig(r=4)], ids=lambda config: config.method)
def test_registers_stay_alone_and_first(config):
    """The tokens of the grid behind them are merged as if they were not there."""
    torch.manual_seed(0)
    x, keys = torch.randn(2, 3 + TOKENS, 8), torch.randn(2, 3 + TOKENS, 2, 4)
    ends = []
    for prefix in (3, 0):
        hooks = hooks_of(config, setting_of(GRID, prefix=prefix))
        stream = Stream(x[:, 3 - prefix :])
        for layer in (1, 3):
            if layer in hooks.after_attention:
                stream = hooks.after_attention[layer](stream, Seen(keys=keys[:, 3 - prefix :][:, : stream.x.shape[1]]))
        ends.append(stream)
    behind, alone = ends
    assert torch.equal(behind.memory.row[:, :3], torch.arange(3).expand(2, -1))
    assert torch.equal(behind.memory.row[:, 3:], alone.memory.row + 3)
    assert [point.left.tolist() for point in behind.record] == [point.left.tolist() for point in alone.record]
    torch.testing.assert_close(behind.x[:, :3], x[:, :3])


def test_gradients_go_through_merged_tokens():
    for config in METHODS.values():
        model = toy(config).train()
        model(picture())["scores"].square().mean().backward()
        without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)]
        assert not without


# Published costs


def vit_base(reduce: Any) -> SegViT:
    with torch.device("meta"):
        return create("vit_base_segvit", bands=3, classes=6, reduce=reduce)


def test_parameters_are_the_dense_networks():
    """93.83 M for ALGM, as published (Zhang & Yao 2025). The 93.80 M of ToMe lack the biases of queries, keys and values."""
    model = vit_base(None)
    for config in (ToMeConfig(), ALGMConfig(), ELViTConfig()):
        model.reduce_tokens(config)
        assert parameters(model) == 93_831_938
    biases = sum(block.attn.qkv.bias.numel() for block in model.backbone.body.blocks)
    assert round((parameters(model) - biases) / 1e6, 2) == 93.80


@pytest.mark.parametrize(
    ("config", "expected"), [(ToMeConfig(), 62.1), (ToMeConfig(mode="sublayer"), 62.6)], ids=["progressive", "sublayer"]
)
def test_defaults_of_tome_cost_about_what_is_published(config, expected):
    """62.40 G (Zhang & Yao 2025, Potsdam) by a count that has norms, 0.1 G, in it; products of the matching included."""
    macs = count_macs_at(vit_base(config), (1, 3, 512, 512))
    assert round(macs.total / 1e9, 1) == expected


# What cannot be obeyed


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ToMeConfig(r=(1, 2)), "lists 2 layers, the encoder has 6"),
        (ALGMConfig(after=(1, 7)), "algm is to act at layer 7, the network has the layers 1 to 6"),
        (ELViTConfig(after=(9,)), "elvit is to act at layer 9"),
        (ELViTConfig(after=(2, 4)), r"clusters the tokens .* once; set reduce\.after to one layer, got \(2, 4\)"),
        (SparseViTConfig(), r"sparsevit leaves out windows .* swin_tiny_upernet; here .*tome.* can be used"),
    ],
    ids=lambda value: getattr(value, "method", None),
)
def test_configs_that_do_not_fit_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        toy(config)

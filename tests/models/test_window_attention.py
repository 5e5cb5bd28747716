import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock, window_partition
from torch import Tensor

from terralean.models.window_attention import (
    Part,
    attend_rows,
    filled_windows,
    layout,
    position_bias,
    put_windows,
    run_windows,
    whole_windows,
    windows_of,
)
from terralean.tokens.scores import attention_received
from weights import fill, image

WIDTH, HEADS, WINDOW = 12, 3, 3
CPU = torch.device("cpu")
SIZES = [(6, 9), (7, 5), (2, 4)]


def block(*, shift: int) -> SwinTransformerBlock:
    made = SwinTransformerBlock(
        WIDTH, (8, 8), num_heads=HEADS, window_size=WINDOW, shift_size=shift, always_partition=True, dynamic_mask=True
    )
    made.load_state_dict(fill(made.state_dict()))
    torch.manual_seed(0)
    torch.nn.init.normal_(made.attn.relative_position_bias_table)
    torch.nn.init.normal_(made.attn.qkv.weight, std=0.5)
    return made.eval()


def tokens(size: tuple[int, int], *, images: int = 2) -> Tensor:
    return torch.from_numpy(image(3, (images, size[0] * size[1], WIDTH)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
def test_tokens_stand_where_timm_rolls_and_pads_them(size, shift):
    numbers = torch.arange(1.0, 1 + size[0] * size[1]).view(1, *size, 1)
    rolled = torch.roll(numbers, (-shift, -shift), dims=(1, 2))
    padded = torch.nn.functional.pad(rolled, (0, 0, 0, -size[1] % WINDOW, 0, -size[0] % WINDOW))
    expected = window_partition(padded, (WINDOW, WINDOW)).flatten(1).long() - 1
    found = layout(size, window=(WINDOW, WINDOW), shift=(shift, shift), device=CPU)
    assert torch.equal(found.token, expected.where(expected >= 0, size[0] * size[1]))
    mask = block(shift=shift).get_attn_mask(padded)
    if not shift:
        assert found.region is mask is None
    else:
        assert torch.equal(found.region[:, :, None] != found.region[:, None], mask != 0)


def test_the_authors_pad_before_they_roll():
    found = layout((4, 4), window=(3, 3), shift=(1, 1), pad_first=True, device=CPU)
    whole = torch.nn.functional.pad(torch.arange(16.0).view(1, 4, 4, 1), (0, 0, 0, 2, 0, 2), value=16)
    expected = window_partition(torch.roll(whole, (-1, -1), dims=(1, 2)), (3, 3)).flatten(1).long()
    assert torch.equal(found.token, expected)


def test_windows_put_back_change_only_their_tokens():
    x, at = tokens((7, 5)), layout((7, 5), window=(3, 3), shift=(1, 1), device=CPU)
    token = at.token[torch.tensor([[0, 3], [5, 2]])]
    windows = windows_of(x, token)
    assert windows.shape == (2, 2, 9, WIDTH)
    assert torch.equal(put_windows(windows, token, x), x)
    changed = (put_windows(windows + 1, token, x) != x).any(dim=2)
    for row, used in zip(changed, token, strict=True):
        assert {*row.nonzero().flatten().tolist()} == {*used.flatten().tolist()} - {35}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
def test_all_windows_and_all_tokens_give_what_timm_gives(size, shift):
    one, x = block(shift=shift), tokens(size)
    at = layout(size, window=one.window_size, shift=one.shift_size, device=CPU)
    token = at.token.expand(2, -1, -1)
    region = None if at.region is None else at.region.expand(2, -1, -1)
    with torch.no_grad():
        expected = one(x.unflatten(1, size)).flatten(1, 2)
        there = token < x.shape[1]
        windows = run_windows(one, windows_of(x, token), there=there, region=region, bias=position_bias(one.attn))
        torch.testing.assert_close(put_windows(windows, token, x), expected, rtol=1e-5, atol=1e-5)
        attended = one._attn(one.norm1(x.unflatten(1, size))).flatten(0, 2)
        count = 2 * size[0] * size[1]
        place = torch.cat([torch.arange(count).view(2, -1), torch.full((2, 1), count)], dim=1)
        for read in (None, attention_received):
            update, received = attend_rows(
                one.attn, one.norm1(x).flatten(0, 1), whole_windows(place, at), see_zeros=True, read=read
            )
            torch.testing.assert_close(update, attended, rtol=1e-5, atol=1e-5)
    if size == (6, 9):  # nobody gives attention to what is past the map
        assert received.sum().item() == pytest.approx(count, rel=1e-5)


def by_hand(one: SwinTransformerBlock, y: Tensor, alive: list[int], *, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Attention of one image's tokens that are on their way, pair by pair: its result and what each token gets, by token."""
    at, count = layout(size, window=one.window_size, shift=one.shift_size, device=CPU), size[0] * size[1]
    window_of = {int(token): (w, p) for w, row in enumerate(at.token) for p, token in enumerate(row) if token < count}
    query, key, value = one.attn.qkv(y).unflatten(-1, (3, HEADS, -1)).unbind(1)
    bias, received = position_bias(one.attn), torch.zeros(count)
    mixed = torch.zeros(count, WIDTH)
    for a in alive:
        window, position = window_of[a]
        others = [b for b in alive if window_of[b][0] == window]
        scores = torch.stack(
            [(query[a] * key[b]).sum(-1) * one.attn.scale + bias[:, position, window_of[b][1]] for b in others]
        )
        if at.region is not None:
            apart = [at.region[window, window_of[b][1]] != at.region[window, position] for b in others]
            scores = scores - 100 * torch.tensor(apart)[:, None]
        weights = scores.softmax(dim=0)
        mixed[a] = (weights[..., None] * value[others]).sum(dim=0).flatten()
        received[others] += weights.mean(dim=1)
    return one.attn.proj(mixed), received


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("cut", [False, True])
def test_tokens_attend_to_those_of_their_window_that_are_on_their_way(size, shift, cut):
    one, count = block(shift=shift), size[0] * size[1]
    torch.manual_seed(1)
    alive = torch.rand(2, count) < torch.tensor([[0.2], [0.8]])
    alive[:, 0] = True
    y = one.norm1(tokens(size))
    rows = alive.flatten().nonzero().flatten()
    place = torch.where(alive, alive.flatten().cumsum(0).view(2, -1) - 1, len(rows))
    place = torch.cat([place, torch.full((2, 1), len(rows))], dim=1)
    at = layout(size, window=one.window_size, shift=one.shift_size, device=CPU)
    parts = filled_windows(place, at, rows=len(rows)) if cut else whole_windows(place, at)
    with torch.no_grad():
        update, received = attend_rows(one.attn, y.flatten(0, 1)[rows], parts, see_zeros=False, read=attention_received)
        expected = [by_hand(one, y[i], alive[i].nonzero().flatten().tolist(), size=size) for i in range(2)]
        torch.testing.assert_close(update, torch.cat([found[0][alive[i]] for i, found in enumerate(expected)]))
        torch.testing.assert_close(received, torch.cat([found[1][alive[i]] for i, found in enumerate(expected)]))
        fused, _ = attend_rows(one.attn, y.flatten(0, 1)[rows], parts, see_zeros=False, read=None)
    torch.testing.assert_close(fused, update)


def test_windows_are_cut_to_about_what_they_hold():
    """Of 49 positions 1, 9, 16 and none are filled: the second and third are computed together."""
    counts, area = (1, 9, 16, 0), 49
    at = layout((7, 28), window=(7, 7), shift=(0, 0), device=CPU)
    place = torch.full((1, 7 * 28 + 1), sum(counts))
    row = 0
    for window, count in enumerate(counts):
        chosen = at.token[window, torch.arange(0, 3 * count, 3) % area]
        place[0, chosen] = torch.arange(row, row + count)
        row += count
    parts = filled_windows(place, at, rows=row)
    assert [tuple(part.row.shape) for part in parts] == [(1, 1), (2, 16)]
    assert sorted(r for part in parts for r in part.row.flatten().tolist() if r < row) == list(range(row))
    for part in parts:
        for rows, positions in zip(part.row.tolist(), part.position.tolist(), strict=True):
            filled = [(r, p) for r, p in zip(rows, positions, strict=True) if r < row]
            assert all(int((place[0] == r).nonzero()[0]) in at.token[:, p] for r, p in filled)


def test_a_window_without_tokens_gives_no_nan_in_gradients():
    one = block(shift=0)
    y = tokens((3, 6), images=1)[0, :4].requires_grad_()
    row = torch.tensor([[0, 1, 2, 3, 4, 4, 4, 4, 4], [4] * 9])
    part = Part(row, torch.arange(9).expand(2, -1), None)
    update, _ = attend_rows(one.attn, y, [part], see_zeros=False, read=None)
    update.square().sum().backward()
    assert y.grad.isfinite().all()
    assert one.attn.qkv.weight.grad.isfinite().all()

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor

from terralean.models.swin_windows import cluster_blocks, resized_bias, sparse_blocks, through
from terralean.models.window_attention import layout, position_bias, windows_of
from terralean.tokens.elvit import ELViTConfig, find_clusters, labels, make_again, weights_back
from terralean.tokens.sparsevit import SparseViTConfig, best_first, window_scores
from weights import fill, image

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = np.load(FOLDER / "sparsevit_stage.npz")
CASES = sorted({"/".join(key.split("/")[:3]) for key in GOLDEN})
PUBLISHED = SparseViTConfig(filling="published")


def relative(found: Tensor, expected) -> float:
    expected = torch.as_tensor(expected)
    return ((found - expected).norm() / expected.norm()).item()


def stage(width: int, *, depth: int = 4, window: int = 7, heads: int | None = None) -> list[SwinTransformerBlock]:
    return [
        SwinTransformerBlock(
            width,
            (8, 8),
            num_heads=heads or width // 32,
            window_size=window,
            shift_size=window // 2 * (i % 2),
            always_partition=True,
            dynamic_mask=True,
        ).eval()
        for i in range(depth)
    ]


def authors_stage(width: int) -> list[SwinTransformerBlock]:
    """Blocks with the authors' weights, which have other names."""
    keys = json.loads((FOLDER / "sparsevit_stage_keys.json").read_text())[f"C{width}_heads{width // 32}_depth4"]
    state = fill({key: torch.empty(shape) for key, shape in keys.items() if not key.endswith("index")})
    blocks = stage(width)
    names = {"attn.w_msa.": "attn.", "ffn.layers.0.0": "mlp.fc1", "ffn.layers.1": "mlp.fc2"}
    for i, block in enumerate(blocks):
        own = {key.removeprefix(f"blocks.{i}."): tensor for key, tensor in state.items() if key.startswith(f"blocks.{i}.")}
        for theirs, ours in names.items():
            own = {key.replace(theirs, ours): tensor for key, tensor in own.items()}
        block.load_state_dict(own)
    return blocks


@pytest.mark.parametrize("case", CASES)
def test_a_stage_is_the_authors(case):
    seed, shape, names = case.split("/")
    images, height, width, channels = map(int, shape.split("x"))
    ratios = [float(ratio) for ratio in names.split("_")[1:]]
    golden = {key.removeprefix(f"{case}/"): GOLDEN[key] for key in GOLDEN if key.startswith(f"{case}/")}
    x, blocks = torch.from_numpy(image(int(seed), (images, height * width, channels))), authors_stage(channels)
    x, first = x.unflatten(1, (height, width)), next(i for i, ratio in enumerate(ratios) if ratio)
    kept = {}
    with torch.no_grad():
        for end in range(1, 5):
            found, record = sparse_blocks(blocks[:end], x, ratios=ratios[:end], config=PUBLISHED, first=1)
            assert relative(found[:, ::4, ::4, ::4], golden[f"block{end - 1}_every_4"]) < 1e-5
            kept.update({point.layer - 1: point for point in record})
            start = found if end == first else x if not first else None
            if start is not None:
                scores = scores_of(start)
                assert relative(scores[0], golden["score_regular"]) < 1e-5
                assert relative(scores[1], golden["score_shifted"]) < 1e-5
        assert relative(found.mean(dim=(0, 1, 2)), golden["mean"]) < 1e-5
        assert relative(found.std(dim=(0, 1, 2), unbiased=False), golden["std"]) < 1e-5
    for i, ratio in enumerate(ratios):
        assert (i in kept) == (f"kept_block{i}" in golden) == bool(ratio)
        if ratio:
            theirs = torch.from_numpy(golden[f"kept_block{i}"]).long()
            at = layout((height, width), window=(7, 7), shift=(i % 2 * 3,) * 2, pad_first=True, device=x.device)
            assert torch.equal(best_first(scores[i % 2])[:, : theirs.shape[1]], theirs)
            alive = torch.zeros(images, height * width + 1, dtype=torch.bool).scatter(
                1, at.token[theirs].flatten(1), value=True
            )
            assert torch.equal(kept[i].alive.flatten(1), alive[:, :-1])
            assert torch.equal(kept[i].left, alive[:, :-1].sum(dim=1))


def scores_of(x: Tensor) -> list[Tensor]:
    """Of regular and of shifted windows."""
    size = (x.shape[1], x.shape[2])
    cuts = [layout(size, window=(7, 7), shift=shift, pad_first=True, device=x.device).token for shift in ((0, 0), (3, 3))]
    return [window_scores(windows_of(x.flatten(1, 2), cut.expand(len(x), -1, -1))) for cut in cuts]


def small(*, depth: int = 4) -> list[SwinTransformerBlock]:
    blocks = stage(16, depth=depth, window=4, heads=2)
    torch.manual_seed(0)
    for block in blocks:
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return blocks


def picture(images: int, side: int) -> Tensor:
    return torch.from_numpy(image(1, (images, side, side, 16)))


@pytest.mark.parametrize("side", [8, 10])
@torch.no_grad()
def test_no_ratio_is_timm(side):
    x, blocks = picture(2, side), small()
    plain = through(blocks, x)
    same, record = sparse_blocks(blocks, x, ratios=[0.0] * 4, config=SparseViTConfig(), first=3)
    assert torch.equal(same, plain)
    assert not record
    almost, record = sparse_blocks(blocks, x, ratios=[1e-9] * 4, config=SparseViTConfig(), first=3)
    assert [point.layer for point in record] == [3, 4, 5, 6]
    assert (almost - plain).abs().max() > 1e-3  # int(windows * (1 - ratio)) is one less
    published, _ = sparse_blocks(blocks, x, ratios=[0.0] * 4, config=PUBLISHED, first=3)
    assert torch.allclose(published, plain, atol=1e-4) == (side == 8)


@torch.no_grad()
def test_windows_left_out_stay_as_they_are_and_stay_out():
    x, blocks = picture(2, 12), small()
    found, record = sparse_blocks(blocks, x, ratios=[0.3, 0.3, 0.6, 0.6], config=SparseViTConfig(), first=1)
    untouched = ~torch.stack([point.alive for point in record]).any(dim=0)
    assert untouched.any(dim=(1, 2)).all()
    assert torch.equal(found[untouched], x[untouched])
    assert not torch.equal(found, x)
    for before, after in ((0, 2), (1, 3)):
        assert (record[after].alive <= record[before].alive).all()
    assert [point.left.tolist() for point in record[::2]] == [[6 * 16] * 2, [3 * 16] * 2]


@torch.no_grad()
def test_windows_are_ranked_by_what_the_first_block_that_leaves_out_any_gets():
    x, blocks = picture(1, 12), small()
    for start in (0, 1):
        seen = through(blocks[:start], x)
        scores = window_scores(
            windows_of(seen.flatten(1, 2), layout((12, 12), window=(4, 4), shift=(0, 0), device=x.device).token[None])
        )
        ratios = [0.0] * start + [0.5] * (4 - start)
        _, record = sparse_blocks(blocks, x, ratios=ratios, config=SparseViTConfig(), first=1)
        regular = next(point for point in record if point.layer in (1, 3))
        kept = F.max_pool2d(regular.alive.float(), 4).flatten() > 0
        assert {*kept.nonzero().flatten().tolist()} == {*scores.topk(4).indices.flatten().tolist()}


@torch.no_grad()
def test_as_many_clusters_as_tokens_without_iteration_are_timm():
    x, blocks = picture(2, 8), small()
    config = ELViTConfig(after=(2,), side=1.0, iterations=0, nearest=1)
    found, record = cluster_blocks(blocks, x, after=[2], config=config, first=1)
    torch.testing.assert_close(found, through(blocks, x), rtol=1e-5, atol=1e-5)
    assert record[0].left.tolist() == [64, 64]


@torch.no_grad()
def test_clusters_are_those_of_each_window():
    """Behind the last block nothing changes them: every token is made of the clusters of its own window."""
    x, blocks = picture(2, 10), small(depth=1)
    config = ELViTConfig(after=(5,), side=0.5, temperature=0.3, nearest=3)
    found, (point,) = cluster_blocks(blocks, x, after=[5], config=config, first=5)
    seen = through(blocks, x)
    for row, column in ((0, 0), (4, 0), (4, 4)):
        tokens = seen[:, row : row + 4, column : column + 4].flatten(1, 2)
        centres = find_clusters(tokens, grid=(4, 4), clusters=(2, 2), config=config)
        expected = make_again(centres, weights_back(tokens, centres, config)).unflatten(1, (4, 4))
        torch.testing.assert_close(found[:, row : row + 4, column : column + 4], expected)
        start = 4 * (row // 4 * 3 + column // 4)
        group = point.group[:, row : row + 4, column : column + 4].flatten(1)
        assert torch.equal(group, labels(tokens, centres) + start)
    assert point.left.tolist() == [9 * 4] * 2
    assert point.group.shape == (2, 10, 10)


@torch.no_grad()
def test_the_map_is_repeated_past_its_end_so_that_no_cluster_is_zero():
    x = torch.ones(1, 5, 5, 16)
    blocks = small(depth=1)
    seen = through(blocks, x)
    found, _ = cluster_blocks(blocks, x, after=[1], config=ELViTConfig(side=0.5, nearest=1), first=1)
    assert found.shape == seen.shape
    low, high = seen.amin(dim=(1, 2)), seen.amax(dim=(1, 2))
    assert (found >= low - 1e-5).all()
    assert (found <= high + 1e-5).all()


def test_tables_of_positions_are_resized_bicubically():
    (block,) = stage(32, depth=1)
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    bias = resized_bias(block.attn, window=(5, 5))
    assert torch.equal(resized_bias(block.attn, window=(7, 7)), position_bias(block.attn))
    table = block.attn.relative_position_bias_table.detach().T.view(1, 1, 13, 13)
    small_table = F.interpolate(table, size=(9, 9), mode="bicubic", align_corners=False)[0, 0]
    for query, key in ((0, 0), (0, 24), (7, 16), (24, 3)):
        rows, columns = query // 5 - key // 5 + 4, query % 5 - key % 5 + 4
        assert bias[0, query, key].item() == pytest.approx(small_table[rows, columns].item(), rel=1e-5)


def test_gradients_reach_all_parameters_of_blocks_on_windows_and_on_clusters():
    for run in (
        lambda blocks, x: sparse_blocks(blocks, x, ratios=[0.4] * 4, config=SparseViTConfig(), first=1),
        lambda blocks, x: cluster_blocks(blocks, x, after=[1], config=ELViTConfig(side=0.5), first=1),
    ):
        blocks = small()
        run(blocks, picture(2, 8))[0].square().mean().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for block in blocks for p in block.parameters())

import pytest
import torch

from terralean.errors import ConfigError
from terralean.tokens.sparsevit import (
    DRAWN,
    SparseViTConfig,
    best_first,
    drawn_ratios,
    keep_windows,
    put_windows_back,
    ratios_by_stage,
    window_scores,
    windows_kept,
)


def test_scores_are_norms_of_mean_absolute_values():
    windows = torch.tensor([[[[3.0, -3.0], [4.0, 4.0]], [[0.0, 1.0], [0.0, 0.0]]]])
    assert window_scores(windows).tolist() == [[5.0, 0.5]]
    assert best_first(torch.tensor([[0.1, 0.9, 0.5]])).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize(("windows", "ratio", "kept"), [(25, 0.8, 4), (25, 0.2, 20), (64, 0.2, 51), (64, 0.5, 32), (9, 0.0, 9)])
def test_numbers_of_windows_are_the_authors(windows, ratio, kept):
    assert windows_kept(windows, ratio=ratio) == kept


def test_windows_put_back_undo_kept_ones():
    windows, kept = torch.randn(2, 6, 4, 3), torch.tensor([[4, 0, 1], [2, 5, 3]])
    part = keep_windows(windows, kept)
    assert torch.equal(part[1, 0], windows[1, 2])
    assert torch.equal(put_windows_back(part, kept, windows), windows)
    changed = put_windows_back(part + 1, kept, windows)
    assert [[i for i in range(6) if not torch.equal(changed[b, i], windows[b, i])] for b in (0, 1)] == [[0, 1, 4], [2, 3, 5]]


def test_blocks_share_ratios_by_two():
    config = SparseViTConfig(ratios=(0.6, 0.0, 0.2, 0.4, 0.5, 0.0))
    expected = [[0.6, 0.6], [0.0, 0.0], [0.2, 0.2, 0.4, 0.4, 0.5, 0.5], [0.0, 0.0]]
    assert ratios_by_stage(config, depths=(2, 2, 6, 2)) == expected
    assert ratios_by_stage(SparseViTConfig(ratios=(0.1, 0.2)), depths=(3,)) == [[0.1, 0.1, 0.2]]


def test_what_cannot_be_obeyed_is_refused():
    with pytest.raises(ConfigError, match=r"from 0 to below 1, got \(1\.0,\)"):
        SparseViTConfig(ratios=(1.0,))
    with pytest.raises(ConfigError, match="has 2 values, the network 6 groups of 2 blocks in stages of 1, 1, 3, 1"):
        ratios_by_stage(SparseViTConfig(ratios=(0.1, 0.2)), depths=(2, 2, 6, 2))
    with pytest.raises(ConfigError, match=r"must rise within a stage.* got \[0\.5, 0\.2\]"):
        ratios_by_stage(SparseViTConfig(ratios=(0.5, 0.2)), depths=(4,))


def test_drawn_ratios_rise_and_are_all_drawn():
    torch.manual_seed(0)
    drawn = [drawn_ratios(5) for _ in range(200)]
    assert all(ratios[0] == ratios[1] <= ratios[2] == ratios[3] <= ratios[4] for ratios in drawn)
    assert {ratio for ratios in drawn for ratio in ratios} == set(DRAWN) == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8}

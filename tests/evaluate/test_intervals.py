import json
import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from terralean.errors import ConfigError
from terralean.evaluate.intervals import Interval, block_bootstrap, document
from terralean.evaluate.metrics import PER_CLASS, PER_MAP, score


def bootstrap(confusions, *, unmapped=None, seed=0, resamples=1000):
    confusions = np.asarray(confusions, np.int64)
    lost = np.zeros(confusions.shape[:2], np.int64) if unmapped is None else np.asarray(unmapped, np.int64)
    return block_bootstrap(confusions, unmapped=lost, generator=np.random.default_rng(seed), resamples=resamples)


def two_class(right, wrong):
    """Blocks of one class pair: right and wrong pixels (n,) of class 0, and as many of class 1 all right."""
    right, wrong = np.asarray(right), np.asarray(wrong)
    blocks = np.zeros((len(right), 2, 2), np.int64)
    blocks[:, 0, 0], blocks[:, 0, 1], blocks[:, 1, 1] = right, wrong, right + wrong
    return blocks


def test_equal_blocks_have_intervals_of_no_width():
    found = bootstrap([[[8, 2], [1, 9]]] * 6).intervals
    alone = score(np.array([[8, 2], [1, 9]]), unmapped=np.zeros(2, np.int64))
    for name in PER_MAP:
        assert getattr(found, name).low == pytest.approx(getattr(alone, name))
        assert getattr(found, name).high == pytest.approx(getattr(alone, name))
    for name in PER_CLASS:
        assert [i.low for i in getattr(found, name)] == pytest.approx(list(getattr(alone, name)))


def test_a_perfect_map_is_certain():
    found = bootstrap([np.diag([i + 1, 2 * i + 3]) for i in range(7)]).intervals
    assert found.oa == found.miou == found.kappa == found.iou[0] == Interval(low=1, high=1)


def test_ends_are_the_quantiles_of_the_binomial_where_a_block_is_right_or_wrong():
    # 20 blocks of one pixel, half of them right: a draw has Binomial(20, 1/2) right ones, 2.5 % at 6 and 97.5 % at 14
    blocks = np.zeros((20, 2, 2), np.int64)
    blocks[:10, 0, 0] = blocks[10:, 0, 1] = 1
    assert bootstrap(blocks, resamples=5000).intervals.oa == Interval(low=6 / 20, high=14 / 20)


def test_the_same_generator_gives_the_same_intervals_and_another_does_not():
    blocks = two_class(np.arange(1, 13), np.arange(12, 0, -1))
    assert bootstrap(blocks) == bootstrap(blocks)
    assert bootstrap(blocks, seed=1).intervals != bootstrap(blocks).intervals


def test_the_order_of_blocks_and_chunks_of_memory_do_not_matter(monkeypatch):
    blocks = two_class(np.arange(1, 13), np.arange(12, 0, -1))
    whole = bootstrap(blocks)
    monkeypatch.setattr("terralean.evaluate.intervals.CHUNK_BYTES", 1)
    assert bootstrap(blocks) == whole


def test_unmapped_pixels_lower_the_interval():
    blocks = [np.diag([5, 5])] * 8
    found = bootstrap(blocks, unmapped=[[2, 0]] * 8).intervals
    assert found.oa == Interval(low=10 / 12, high=10 / 12)
    assert found.recall[0].high == pytest.approx(5 / 7)


def test_few_blocks_give_no_interval_but_a_reason():
    found = bootstrap([np.diag([5, 5])] * 4)
    assert found.intervals is None
    assert found.note.startswith("No intervals: the test area has 4 blocks with labels, and at least 5 are needed.")
    assert "1 block with" in bootstrap([np.diag([5, 5])]).note


def test_blocks_without_labels_are_not_counted_or_drawn():
    labelled, empty = [np.diag([5, 5])] * 4, [np.zeros((2, 2))] * 30
    assert bootstrap([*labelled, *empty]).intervals is None
    blocks = two_class(np.arange(1, 13), np.arange(12, 0, -1))
    assert bootstrap(np.concatenate([blocks, np.zeros((9, 2, 2), np.int64)])) == bootstrap(blocks)


def test_the_note_says_how_many_blocks_and_warns_of_few():
    assert "1000 draws of the 25 test blocks" in bootstrap([np.diag([5, 5])] * 25).note
    assert "too narrow" not in bootstrap([np.diag([5, 5])] * 25).note
    assert "too narrow" in bootstrap([np.diag([5, 5])] * 10).note


def test_a_class_in_fewer_than_five_blocks_has_no_interval():
    blocks = np.stack([np.diag([9, 4, 2 if i < 4 else 0]) for i in range(10)])
    blocks[:, 0, 1] = np.arange(10)
    found = bootstrap(blocks).intervals
    assert (found.iou[2], found.recall[2], found.precision[2]) == (None, None, None)
    assert found.iou[1].low < found.iou[1].high


def test_a_class_that_is_mapped_in_five_blocks_but_not_there_has_only_precision():
    blocks = np.stack([np.array([[9, 1], [0, 0]])] * 6)
    found = bootstrap(blocks).intervals
    assert found.precision[1] == Interval(low=0, high=0)
    assert (found.recall[1], found.iou[1]) == (None, None)


def test_too_few_resamples_are_refused():
    with pytest.raises(ConfigError, match=r"200 resamples are too few.*use 1000 or more"):
        bootstrap([np.diag([5, 5])] * 6, resamples=200)


def test_blocks_hold_the_truth_far_more_often_than_pixels_where_errors_are_clustered():
    """Errors of a smooth random field, about 10 px wide, in blocks of 30 px: the accuracy is known exactly."""
    generator = np.random.default_rng(5)
    side, block, spread, level, runs = 240, 30, 5, 1.0, 100
    truth = norm.cdf(level)
    hits = {"blocks": 0, "pixels": 0}
    for _ in range(runs):
        field = gaussian_filter(generator.standard_normal((side + 40, side + 40)), spread)[20:-20, 20:-20]
        wrong = field * 2 * math.sqrt(math.pi) * spread > level
        per_block = wrong.reshape(side // block, block, side // block, block).sum(axis=(1, 3)).reshape(-1)
        found = bootstrap(two_class(block**2 - per_block, per_block), seed=7).intervals.recall[0]
        hits["blocks"] += found.low <= truth <= found.high
        share = 1 - wrong.mean()
        ends = np.quantile(generator.binomial(side**2, share, size=1000) / side**2, [0.025, 0.975])
        hits["pixels"] += ends[0] <= truth <= ends[1]
    assert hits["blocks"] >= 0.8 * runs
    assert hits["pixels"] <= 0.4 * runs


def test_the_document_is_plain_json_with_null_for_what_has_no_meaning():
    blocks = np.stack([np.array([[9 + i, 1, 0], [2, 7, 0], [0, 0, 0]]) for i in range(8)])
    found = bootstrap(blocks)
    scores = score(blocks.sum(axis=0), unmapped=np.zeros(3, np.int64))
    page = json.loads(json.dumps(document(scores, found, names=("a", "b", "c")), allow_nan=False))
    assert page["OA"] == {"value": scores.oa, "low": found.intervals.oa.low, "high": found.intervals.oa.high}
    assert list(page) == ["OA", "AA", "kappa", "mIoU", "mF1", "classes", "intervals"]
    assert [c["name"] for c in page["classes"]] == ["a", "b", "c"]
    assert page["classes"][2]["IoU"] == {"value": None}
    assert page["classes"][1]["support_px"] == 72

import json
import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import norm
from scipy.stats import t as student

from terralean.errors import ConfigError
from terralean.evaluate.intervals import Interval, block_bootstrap, document, join, mean_bootstrap
from terralean.evaluate.metrics import PER_CLASS, PER_MAP, mean, score, spread


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


def trainings(*wrongs):
    """Counts (S, n, 2, 3) of blocks of 100 pixels of one class, so many of them wrong in each training."""
    wrongs = np.array(wrongs)
    confusions = np.zeros((*wrongs.shape, 2, 2), np.int64)
    confusions[..., 0, 0], confusions[..., 0, 1] = 100 - wrongs, wrongs
    return join(confusions, np.zeros((*wrongs.shape, 2), np.int64))


def mean_interval(counts):
    return mean_bootstrap(counts, generator=np.random.default_rng(0), resamples=1000).intervals


def test_the_interval_of_a_mean_adds_two_variances_and_counts_how_few_trainings_there_are():
    wrongs = np.random.default_rng(2).integers(0, 40, (1, 12)) + np.array([[0], [9], [15]])
    found = mean_interval(trainings(*wrongs)).oa
    whole = [1 - sum(row) / 1200 for row in wrongs.tolist()]
    times = np.random.default_rng(0).multinomial(12, [1 / 12] * 12, size=1000)
    draws = [sum(1 - sum(n * w for n, w in zip(draw, row, strict=True)) / 1200 for row in wrongs) / 3 for draw in times]
    centre = sum(whole) / 3
    training = sum((x - centre) ** 2 for x in whole) / 2 / 3
    area = sum((x - sum(draws) / 1000) ** 2 for x in draws) / 999
    freedom = (training + area) ** 2 / (training**2 / 2 + area**2 / 11)
    half = student.ppf(0.975, freedom) * math.sqrt(training + area)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), rel=1e-9)


def test_of_one_training_the_mean_has_the_interval_of_the_block_bootstrap():
    blocks = two_class(np.arange(1, 13), np.arange(12, 0, -1))
    assert mean_interval(join(blocks, np.zeros((12, 2), np.int64))[None]) == bootstrap(blocks).intervals


def test_trainings_that_differ_make_the_mean_less_sure():
    base = np.random.default_rng(2).integers(0, 40, 30)
    alike, unlike = mean_interval(trainings(base, base, base)).oa, mean_interval(trainings(base, base + 8, base + 16)).oa
    assert unlike.high - unlike.low > 1.5 * (alike.high - alike.low)


def test_no_interval_leaves_the_range_of_its_score():
    found = mean_interval(trainings([0] * 8, [0, 0, 0, 0, 0, 0, 0, 9], [0] * 8))
    assert found.oa.high == 1
    assert found.recall[0].high == 1


def test_the_interval_of_the_mean_of_three_trainings_holds_the_truth_about_as_often_as_it_says():
    """Trainings whose error differs by 2 points and blocks by 6: a truth of 20 %."""
    generator, hits, runs = np.random.default_rng(4), 0, 200
    for _ in range(runs):
        wrong = 20 + generator.normal(0, 2, (3, 1)) + generator.normal(0, 6, (1, 30)) + generator.normal(0, 3, (3, 30))
        found = mean_interval(trainings(*np.clip(np.rint(wrong), 0, 100).astype(int))).oa
        hits += found.low <= 0.8 <= found.high
    assert 0.9 * runs <= hits <= 0.99 * runs


def test_the_note_of_a_mean_says_what_is_in_it():
    counts = trainings(*np.random.default_rng(2).integers(0, 40, (3, 25)))
    note = mean_bootstrap(counts, generator=np.random.default_rng(0), resamples=1000).note
    assert note.startswith("95 % intervals of the mean over 3 trainings that differ in their seed")
    assert "plus the variance between the trainings" in note


def test_the_document_of_several_trainings_has_their_spread():
    counts = trainings(*np.random.default_rng(2).integers(0, 40, (3, 25)))
    each = [score(total[:, :-1], unmapped=total[:, -1]) for total in counts.sum(axis=1)]
    found = mean_bootstrap(counts, generator=np.random.default_rng(0), resamples=1000)
    page = document(mean(each), found, names=("a", "b"), spread=spread(each))
    assert page["OA"]["value"] == pytest.approx(np.mean([s.oa for s in each]))
    assert page["OA"]["sd"] == pytest.approx(np.std([s.oa for s in each], ddof=1))
    assert page["classes"][0]["IoU"]["sd"] == pytest.approx(np.std([s.iou[0] for s in each], ddof=1))
    assert page["classes"][1]["recall"]["sd"] is None  # the reference does not hold the class


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

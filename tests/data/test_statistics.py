"""Streamed statistics equal those of all valid pixels at once, and faults are named."""

from dataclasses import replace

import numpy as np
import pytest

from terralean.data import reading
from terralean.data.config import DataConfig
from terralean.data.split import Region, Split
from terralean.data.statistics import Moments, check_learnable, measure, moments_of, no_moments
from terralean.errors import DatasetError, LabelError
from terralean.raster.coding import PLAIN
from terralean.raster.grid import Window
from terralean.spec import Bands, Classes

CLASSES = Classes.named(["a", "b", "c"])


def bands(count: int) -> Bands:
    return Bands(names=tuple(f"band_{i + 1}" for i in range(count)), dtype="float32")


def region(image: str, label: str, window: Window) -> Region:
    return Region(image=image, label=label, window=window, split="train")


def whole(size: int = 64) -> Window:
    return Window(row=0, col=0, height=size, width=size)


def run(regions, *, count: int = 3, classes: Classes = CLASSES, seed: int = 0):
    return measure(regions, classes=classes, coding=PLAIN, bands=bands(count), config=DataConfig(), seed=seed)


@pytest.fixture
def scenes(write_image):
    """Two images of float bands with NaN, far from zero; labels with ignored pixels. As (image, label, values, labels)."""
    rng, out = np.random.default_rng(0), []
    for i in range(2):
        values = (1e5 + rng.normal(size=(3, 64, 64)) * [[[1.0]], [[10.0]], [[100.0]]] + 50 * i).astype(np.float32)
        values[1, :5, :7] = np.nan
        labels = rng.choice([0, 1, 255], (64, 64), p=[0.6, 0.3, 0.1]).astype(np.uint8)
        out.append((write_image(f"{i}.tif", values), write_image(f"{i}_labels.tif", labels), values, labels))
    return out


def test_streamed_moments_equal_those_of_all_valid_pixels(scenes, monkeypatch):
    monkeypatch.setattr(reading, "STRIP_PX", 500)
    found = run([region(image, label, whole()) for image, label, _, _ in scenes])
    pixels = np.concatenate([v[:, np.isfinite(v).all(axis=0)] for _, _, v, _ in scenes], axis=1).astype(np.float64)
    assert found.valid_pixels == pixels.shape[1] == 2 * (64 * 64 - 35)
    assert found.normalisation.mean == pytest.approx(pixels.mean(axis=1), rel=1e-12)
    assert found.normalisation.std == pytest.approx(pixels.std(axis=1), rel=1e-9)


def test_class_pixels_are_counted_where_valid_only(scenes):
    found = run([region(image, label, whole()) for image, label, _, _ in scenes])
    seen = np.concatenate([labels[np.isfinite(v).all(axis=0)] for _, _, v, labels in scenes])
    assert found.class_pixels == ((seen == 0).sum(), (seen == 1).sum(), 0)


def test_only_the_region_counts(scenes):
    image, label, values, labels = scenes[0]
    part = Window(row=10, col=20, height=30, width=40)
    found = run([region(image, label, part)])
    assert found.normalisation.mean == pytest.approx(values[:, 10:40, 20:60].astype(float).mean(axis=(1, 2)), rel=1e-12)
    assert found.class_pixels[0] == (labels[10:40, 20:60] == 0).sum()


def test_merging_is_independent_of_the_parts():
    rng = np.random.default_rng(1)
    values, valid = rng.normal(size=(2, 30, 30)) * 5 + 1e6, rng.random((30, 30)) < 0.7
    at_once = moments_of(values, valid)
    merged = no_moments(2)
    for rows in (slice(0, 1), slice(1, 17), slice(17, 17), slice(17, 30)):
        merged = merged.merge(moments_of(values[:, rows], valid[rows]))
    assert merged.count == at_once.count
    np.testing.assert_allclose(merged.mean, at_once.mean, rtol=1e-14)
    np.testing.assert_allclose(merged.squares, at_once.squares, rtol=1e-8)
    assert isinstance(merged, Moments)


def test_positions_hold_their_class_and_are_a_fair_sample(scenes, monkeypatch):
    monkeypatch.setattr("terralean.data.statistics.POSITIONS_EACH", 400)
    monkeypatch.setattr(reading, "STRIP_PX", 64 * 8)
    found = run([region(image, label, whole()) for image, label, _, _ in scenes])
    for (_, _, values, labels), positions in zip(scenes, found.index.positions, strict=True):
        for value in (0, 1):
            rows, cols = positions[value].T
            assert len(rows) == 400
            assert len(set(zip(rows.tolist(), cols.tolist(), strict=True))) == 400
            assert (labels[rows, cols] == value).all()
            assert np.isfinite(values[:, rows, cols]).all()
            assert abs(rows.mean() - 32) < 4  # five standard errors
        assert len(positions[2]) == 0


def learn(regions: dict[str, Region], *ignore: str | int) -> None:
    """check_learnable on a split of these regions, named by split."""
    named = tuple(replace(region, split=name.split("_")[0]) for name, region in regions.items())
    split = Split(root="/", regions=named, rule="", method="given", seed=0, gap_px=0, gap_m=None)
    check_learnable(run(split.of("train")), split, classes=CLASSES, config=DataConfig(ignore=ignore))


def test_a_class_without_a_training_pixel_is_an_error_that_says_where_it_is(scenes, write_image):
    image, label, _, labels = scenes[0]
    write_image("1_labels.tif", np.where(labels == 1, 2, labels).astype(np.uint8))
    mine, other = region(image, label, whole()), region(*scenes[1][:2], whole())
    pixels = int((labels == 1).sum())
    with pytest.raises(LabelError) as error:
        learn({"train": mine, "test": other, "validation": mine}, 7, "#ff0000")
    assert str(error.value) == (
        f"no training pixel of c ({pixels} px in the test split, {scenes[1][0]} for one): the model cannot learn it; label "
        "some in the training images, split the data otherwise (data.split, --seed), or leave the class out: "
        "--set \"data.ignore=[7, '#ff0000', c]\""
    )
    learn({"train_0": mine, "train_1": other})


def test_a_class_that_is_nowhere_or_in_the_gap_is_told_so(scenes, write_image):
    image, label, _, labels = scenes[0]
    with pytest.raises(LabelError, match=r"no training pixel of c \(none in any split\)"):
        learn({"train": region(image, label, whole())})
    gap = labels.copy()
    gap[40, :3] = 2
    write_image("0_labels.tif", gap)
    with pytest.raises(LabelError, match=r"c \(3 px in .*0\.tif, all in the gap between the splits\)"):
        learn({"train": region(image, label, Window(row=0, col=0, height=30, width=64))})


def test_numbers_with_gaps_may_be_the_classes(scenes, write_image):
    image, label, _, labels = scenes[0]
    write_image("0_labels.tif", np.where(labels == 1, 60, labels).astype(np.uint8))
    of = region(image, label, whole())
    split = Split(root="/", regions=(of,), rule="", method="given", seed=0, gap_px=0, gap_m=None)
    unnamed = Classes.named([f"class {i}" for i in range(61)])
    statistics = run([of], classes=unnamed)
    with pytest.raises(LabelError) as error:
        check_learnable(statistics, split, classes=unnamed, config=DataConfig())
    assert "class 5 (none in any split) and 54 more: the model cannot learn it; if the classes are" in str(error.value)
    assert '--set "data.label_values=[0, 60]"; else label some' in str(error.value)


def test_one_class_is_nothing_to_tell_apart(scenes):
    one = Classes.named(["forest"])
    split = Split(root="/", regions=(), rule="", method="given", seed=0, gap_px=0, gap_m=None)
    with pytest.raises(LabelError, match="forest is the only class, so that there is nothing to tell apart; label a second"):
        check_learnable(run([region(*scenes[0][:2], whole())]), split, classes=one, config=DataConfig())


def test_nothing_but_nodata_is_an_error(write_image):
    image = write_image("a.tif", np.zeros((3, 8, 8), np.uint8), nodata=0)
    label = write_image("b.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(DatasetError, match=r"a\.tif for one: no valid pixel, all are nodata"):
        run([region(image, label, whole(8))])


def test_a_constant_band_is_named(write_image):
    values = np.arange(3 * 64, dtype=np.float32).reshape(3, 8, 8)
    values[1] = 0.1
    image, label = write_image("a.tif", values), write_image("b.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(DatasetError, match=r"constant in all valid pixels: band_2 \(always 0\.1\); leave such bands out"):
        run([region(image, label, whole(8))])

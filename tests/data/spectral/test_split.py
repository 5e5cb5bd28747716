import numpy as np
import pyogrio
import pytest
import shapely
from scipy.io import loadmat

from terralean.data.spectral.config import SpectralDataConfig, SpectralSplitConfig
from terralean.data.spectral.deals import wanted
from terralean.data.spectral.leakage import check_leakage
from terralean.data.spectral.parts import load_split, save_split
from terralean.data.spectral.pixels import Pixels, agreement, joined, labelled
from terralean.data.spectral.places import nearest_px, origins
from terralean.data.spectral.scenes import LabelledCube, SpectralDataset, find_cubes
from terralean.data.spectral.split import all_pixels, deal_pixels
from terralean.errors import ConfigError, DatasetError, EmptySplit, LabelError
from terralean.raster.coding import Coding
from terralean.raster.grid import Grid
from terralean.spec import Bands, Classes

GRID = Grid(width=60, height=60, crs=None)
CLASSES = Classes.named(("a", "b", "c"))


def fields(seed=0, side=60, field=10):
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 3, (side // field, side // field)), np.ones((field, field), np.int64)).astype(np.uint8)


def dataset(*grids, classes=CLASSES, root="."):
    scenes = tuple(LabelledCube(image=f"{i}.hdr", labels=None, grid=grid) for i, grid in enumerate(grids or (GRID,)))
    coding = Coding(values=(1, 2, 3), ignored=(0,))
    return SpectralDataset(root=root, scenes=scenes, bands=Bands(names=("x", "y")), classes=classes, coding=coding, notes=())


def deal(labels, *, seed=0, data=None, **settings):
    config = SpectralDataConfig(split=SpectralSplitConfig(**settings))
    pixels = labelled(labels, scene=0, none=255)
    return deal_pixels(data or dataset(), config, pixels, seed=seed), pixels


def keys(pixels):
    return {*zip(pixels.scene.tolist(), pixels.row.tolist(), pixels.col.tolist(), strict=True)}


@pytest.mark.parametrize("method", ["random", "block"])
def test_parts_share_no_pixel_and_keep_their_classes(method):
    labels = fields()
    split, pixels = deal(labels, method=method, window_px=5)
    parts = [split.train, split.validation, split.test]
    assert sum(len(keys(part)) for part in parts) == len(keys(joined(parts)))
    assert keys(joined(parts)) <= keys(pixels)
    for part in parts:
        assert (labels[part.row, part.col] == part.label).all()
    assert split.train.counts(3).tolist() == wanted(pixels.counts(3), SpectralSplitConfig()).tolist()


@pytest.mark.parametrize(("distance", "least"), [("centre", 3), ("strict", 5)])
def test_no_test_pixel_is_near_a_training_pixel(distance, least):
    split, _ = deal(fields(), window_px=5, distance=distance)
    apart = np.abs(split.places("test")[:, None] - split.places("train")[None]).max(axis=2)
    assert apart.min() == least
    assert sum(split.dropped) > 0
    found = check_leakage(split, classes=3)
    assert (found.inside, found.nearest_px) == (0, least)
    assert (found.sharing == 0) == (distance == "strict")
    assert "LEAKS" not in found.verdict
    assert f"{sum(split.dropped)}" in split.rule


def test_every_class_is_on_both_sides_of_smaller_squares_where_it_must():
    labels = np.full((60, 60), 0, np.uint8)
    labels[30:, 30:] = 1  # within one square of 30 px
    split, _ = deal(labels, window_px=15)
    assert (split.train.counts(3)[:2] > 0).all()
    assert (split.test.counts(3)[:2] > 0).all()
    assert "squares of 15 px" in split.rule


def test_random_pixels_leak_and_position_alone_does_well():
    split, _ = deal(fields(), method="random", window_px=15)
    found = check_leakage(split, classes=3)
    near = nearest_px(split.places("test"), split.places("train"))
    assert found.inside == (near <= 7).mean() > 0.9
    assert found.floor["oa"] > 0.8
    assert found.verdict.startswith("LEAKS: ")
    assert f"OA {100 * found.floor['oa']:.2f} %" in found.verdict


def test_published_label_map_gives_the_known_floor_and_overlap(shared):
    labels = loadmat(shared / "data/hsi/label_maps/Indian_pines_gt.mat")["indian_pines_gt"]
    classes = Classes.named(tuple(f"class {i}" for i in range(1, 17)))
    data = dataset(Grid(width=145, height=145, crs=None), classes=classes)
    known = np.where(labels > 0, labels - 1, 255).astype(np.uint8)
    split, _ = deal(known, data=data, method="random", share=0.1, validation=0.0)
    found = check_leakage(split, classes=16)
    assert split.train.counts(16).sum() == pytest.approx(1025, abs=10)
    assert found.inside > 0.99
    assert [found.floor[key] for key in ("oa", "aa", "kappa")] == pytest.approx([0.973, 0.966, 0.969], abs=0.012)


def test_few_pixels_are_shared_out_and_named():
    counts = np.array([1, 2, 3, 20, 1000])
    assert wanted(counts, SpectralSplitConfig()).tolist() == [1, 1, 2, 3, 50]
    assert wanted(counts, SpectralSplitConfig(per_class=10)).tolist() == [1, 1, 2, 10, 10]
    labels = fields()
    labels[labels == 2] = 0
    labels[0, 0] = 2
    split, _ = deal(labels, method="random")
    assert split.train.counts(3)[2] == 1
    assert "no test pixel of c" in split.notes
    assert split.counts(CLASSES.names)["c"] == {"train": 1, "validation": 0, "test": 0, "dropped": 0}


def test_validation_takes_no_more_than_it_may():
    few, _ = deal(fields(), method="random", share=0.5)
    assert len(few.validation) == pytest.approx(900, abs=3)
    capped, pixels = deal(fields(), method="random", share=0.5, validation_most=90)
    assert len(capped.validation) == pytest.approx(90, abs=3)
    assert (capped.validation.counts(3) > 0).all()
    none, _ = deal(fields(), method="random", validation=0.0)
    assert len(none.validation) == 0
    assert len(none.train) + len(none.test) == len(pixels)


def test_the_same_seed_deals_the_same_and_another_otherwise():
    one, two, three = (deal(fields(), seed=seed)[0] for seed in (3, 3, 4))
    assert keys(one.train) == keys(two.train)
    assert keys(one.train) != keys(three.train)
    config = SpectralDataConfig(split=SpectralSplitConfig(seed=3))
    fixed = deal_pixels(dataset(), config, labelled(fields(), scene=0, none=255), seed=4)
    assert keys(fixed.train) == keys(one.train)


def test_a_split_is_written_and_read(tmp_path):
    split, _ = deal(fields(), window_px=5)
    save_split(split, tmp_path / "split.json")
    found = load_split(tmp_path / "split.json")
    for name in ("train", "validation", "test"):
        assert keys(found.of(name)) == keys(split.of(name))
        assert (found.places(name) == split.places(name)).all()
    assert (found.rule, found.dropped, found.window_px) == (split.rule, split.dropped, 5)


def test_scenes_are_tested_apart():
    grids = [Grid(width=60, height=60, crs=None)] * 2
    pixels = joined([labelled(fields(seed), scene=seed, none=255) for seed in (0, 1)])
    config = SpectralDataConfig(split=SpectralSplitConfig(method="scene", test_scenes=("1",)))
    split = deal_pixels(dataset(*grids), config, pixels, seed=0)
    assert set(split.train.scene) == set(split.validation.scene) == {0}
    assert set(split.test.scene) == {1}
    assert len(split.test) == 3600
    wrong = SpectralDataConfig(split=SpectralSplitConfig(method="scene", test_scenes=("2",)))
    with pytest.raises(DatasetError, match="no scene 2; there are 0, 1"):
        deal_pixels(dataset(*grids), wrong, pixels, seed=0)


def test_tiles_of_one_lattice_keep_their_distance():
    left = Grid(width=32, height=32, crs="EPSG:32633", transform=(30.0, 0.0, 3e5, 0.0, -30.0, 5.8e6))
    right = Grid(width=32, height=32, crs="EPSG:32633", transform=(30.0, 0.0, 3e5 + 32 * 30, 0.0, -30.0, 5.8e6 - 64 * 30))
    off = Grid(width=32, height=32, crs="EPSG:32633", transform=(30.0, 0.0, 3e5 + 10, 0.0, -30.0, 5.8e6))
    assert origins([left, right]).tolist() == [[0, 0], [64, 32]]
    assert origins([left, off])[1].max() > 1e6


def maps(folder, **named):
    for name, values in named.items():
        np.save(folder / f"{name}.npy", values)
    return {f"{name}_labels": f"{name}.npy" for name in named if name != "full"}


def map_split(folder, labels=None, **named):
    told = maps(folder, **named)
    config = SpectralDataConfig(labels=labels, split=SpectralSplitConfig(method="maps", window_px=5), **told)
    data = dataset(root=str(folder))
    full = all_of(named)
    return deal_pixels(data, config, labelled(full, scene=0, none=255), seed=0)


def all_of(named):
    whole = named.get("full", np.maximum(named["train"], named["test"]))
    return np.where(whole > 0, whole - 1, 255).astype(np.uint8)


def test_given_maps_are_used_as_they_are(tmp_path):
    numbers = fields() + 1
    train, test = numbers.copy(), numbers.copy()
    train[30:], test[:30] = 0, 0
    split = map_split(tmp_path, train=train.astype(np.uint8), test=test.astype(np.uint8))
    assert len(split.train) + len(split.validation) == 1800
    assert len(split.test) == 1800
    assert split.test.row.min() == 30


def test_given_maps_are_checked(tmp_path):
    numbers = (fields() + 1).astype(np.uint8)
    train, test = numbers.copy(), numbers.copy()
    train[30:], test[:29] = 0, 0
    with pytest.raises(LabelError, match=r"train.npy and test.npy both label 60 pixels"):
        map_split(tmp_path, train=train, test=test)
    test[:30] = 0
    shifted = np.where(test > 0, test % 3 + 1, 0).astype(np.uint8)
    with pytest.raises(LabelError, match=r"test.npy: 1800 of 1800 pixels are of another class.*renumber"):
        map_split(tmp_path, train=train, test=shifted, full=numbers, labels="full.npy")
    with pytest.raises(LabelError, match=r"test.npy has the classes c, which .*train.npy lacks"):
        map_split(tmp_path, train=np.where(train == 3, 0, train).astype(np.uint8), test=test)


def test_what_cannot_be_dealt_is_said():
    one_square = np.full((60, 60), 255, np.uint8)
    one_square[:4, :4] = np.arange(16).reshape(4, 4) % 2
    with pytest.raises(EmptySplit, match=r"the labelled area is too small|training pixels of two classes"):
        deal(one_square, block_px=60)
    with pytest.raises(EmptySplit, match="training pixels of two classes at least are needed, got a"):
        deal(np.zeros((60, 60), np.uint8))
    small = np.full((60, 60), 255, np.uint8)
    small[:4, :4] = fields()[8:12, 8:12]
    small[0, :2] = [0, 1]
    with pytest.raises(EmptySplit, match=r"no test pixel is more than 7 px from training pixels; .*data.split.method=random"):
        deal(small)
    with pytest.raises(ConfigError, match=r"data.split.method=maps needs data.train_labels and data.test_labels"):
        SpectralDataConfig(split=SpectralSplitConfig(method="maps"))
    with pytest.raises(ConfigError, match=r"above 0 and below 1, got 5; 0.05 is 5 %"):
        SpectralSplitConfig(share=5)
    with pytest.raises(ConfigError, match=r"data.split.seed must be 0 or more, got -3"):
        SpectralSplitConfig(seed=-3)
    with pytest.raises(ConfigError, match=r"data.split.validation must be 0 or more, got nan"):
        SpectralSplitConfig(validation=float("nan"))


def test_agreement_is_that_of_the_field():
    counts = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    found = agreement(counts)
    assert found["oa"] == pytest.approx(0.85)
    assert found["aa"] == pytest.approx(0.85)  # the third class has no pixel and does not count
    assert found["kappa"] == pytest.approx((0.85 - 0.5) / 0.5)


def test_pixels_are_taken_together():
    pixels = Pixels(**{name: np.arange(4) for name in ("scene", "row", "col", "label")})
    assert keys(pixels.take(np.array([2, 0]))) == {(2, 2, 2), (0, 0, 0)}


def test_all_pixels_reads_the_labels(tmp_path, labelled_cube):
    _, known = labelled_cube(tmp_path / "data")
    found = all_pixels(find_cubes(tmp_path / "data", SpectralDataConfig()))
    assert len(found) == (known != 255).sum()
    assert (known[found.row, found.col] == found.label).all()


def test_labels_of_other_ground_are_told(tmp_path, labelled_cube):
    labelled_cube(tmp_path, labels=False)
    far = Grid(width=40, height=48, crs="EPSG:32633", transform=(30.0, 0.0, 9e5, 0.0, -30.0, 5.8e6))
    name, area = str(tmp_path / "a.gpkg"), shapely.to_wkb(shapely.box(*far.corners()[0], *far.corners()[2]))
    pyogrio.raw.write(
        name, np.array([area], object), [np.array(["wood"])], fields=["class"], geometry_type="Polygon", crs="EPSG:32633"
    )
    with pytest.raises(EmptySplit, match=r"no label of .*a\.gpkg lies in its cube; give labels of the same ground"):
        all_pixels(find_cubes(tmp_path, SpectralDataConfig()))

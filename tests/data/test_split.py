"""Splits cover the labels, do not overlap, and keep the gap."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer
from rasterio.transform import Affine, from_origin
from scipy.spatial import KDTree

from terralean.data.config import DataConfig, ListedSplit, SplitConfig
from terralean.data.index import find
from terralean.data.split import Split, load_split, make_split, save_split
from terralean.errors import ConfigError, DatasetError, EmptySplit, MissingFile
from terralean.raster.coding import PLAIN, Coding
from terralean.raster.scene import open_scene

SPLITS = ("train", "validation", "test")
LABELS = (np.add.outer(np.arange(240) // 12, np.arange(200) // 12) % 3).astype(np.uint8)


@pytest.fixture
def write_scene(write_image):
    """One scene with labels of its name; 240 x 200 px of 10 m unless told otherwise."""

    def write(name: str, *, crs="EPSG:32633", transform=None, labels=LABELS) -> None:
        transform = transform or from_origin(500_000, 5_000_000, 10, 10)
        image = np.arange(3 * labels.size, dtype=np.uint16).reshape(3, *labels.shape)
        write_image(f"{name}.tif", image, crs=crs, transform=transform)
        write_image(f"{name}_labels.tif", labels, crs=crs, transform=transform, nodata=255)

    return write


def painted(split, image: str) -> dict[str, np.ndarray]:
    """How many regions of each split cover each pixel of an image."""
    with open_scene(image) as scene:
        out = {name: np.zeros((scene.grid.height, scene.grid.width), dtype=int) for name in SPLITS}
    for region in split.regions:
        if region.image == image:
            out[region.split][region.window.slices()] += 1
    return out


def make(folder: Path, seed: int = 0, **split) -> tuple:
    config = DataConfig(split=SplitConfig(**split))
    dataset = find(folder, config)
    return make_split(dataset, config, seed=seed), dataset


def chebyshev_px(train: np.ndarray, other: np.ndarray) -> float:
    """Least number of pixels strictly between a training pixel and another, along the larger axis."""
    tree = KDTree(np.argwhere(other))
    return float(tree.query(np.argwhere(train), p=np.inf)[0].min()) - 1


@pytest.mark.parametrize("crs", ["EPSG:32633", None], ids=["located", "unlocated"])
@pytest.mark.parametrize("seed", range(3))
def test_blocks_without_a_gap_partition_the_labelled_area(tmp_path, write_scene, crs, seed):
    write_scene("a", crs=crs)
    split, dataset = make(tmp_path, seed, block_px=32, gap_px=0)
    cover = painted(split, dataset.sources[0].image)
    assert (sum(cover.values()) == 1).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gap", [1, 7, 16])
def test_training_keeps_exactly_the_gap(tmp_path, write_scene, seed, gap):
    write_scene("a")
    split, dataset = make(tmp_path, seed, block_px=40, gap_px=gap)
    cover = painted(split, dataset.sources[0].image)
    judging = (cover["validation"] + cover["test"]) > 0
    assert (sum(cover.values()) <= 1).all()
    assert chebyshev_px(cover["train"], judging) == gap
    free = ~judging
    near = KDTree(np.argwhere(judging)).query(np.argwhere(free), p=np.inf)[0] <= gap
    dropped = free.copy()
    dropped[tuple(np.argwhere(free).T)] = near
    assert np.array_equal(cover["train"] > 0, free & ~dropped)


def test_the_gap_in_metres_is_kept(tmp_path, write_scene):
    write_scene("a")
    split, dataset = make(tmp_path, block_m=400, gap_m=75)
    cover = painted(split, dataset.sources[0].image)
    assert chebyshev_px(cover["train"], (cover["validation"] + cover["test"]) > 0) == 8
    assert split.rule.startswith("blocks of 400 m: 30 with labels")
    assert split.rule.endswith("training keeps 75 m away from the others")


def centres(image: str, where: np.ndarray, crs: str) -> np.ndarray:
    with open_scene(image) as scene:
        a, b, c, d, e, f = scene.grid.transform
        source = scene.grid.crs
    row, col = np.argwhere(where).T + 0.5
    x, y = a * col + b * row + c, d * col + e * row + f
    return np.stack(Transformer.from_crs(source, crs, always_xy=True).transform(x, y), axis=-1)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", from_origin(500_995, 4_999_005, 10, 10)),  # half a pixel off the other
        ("EPSG:32633", from_origin(502_000, 5_000_000, 10, 10)),  # adjoining
        ("EPSG:32632", from_origin(971_900, 5_017_000, 10, 10)),  # overlapping, in the next zone
        ("EPSG:32633", Affine(8, 6, 500_300, 6, -8, 4_998_500)),  # overlapping, turned
    ],
    ids=["half a pixel", "adjoining", "other zone", "turned"],
)
@pytest.mark.parametrize("seed", range(2))
def test_overlapping_and_adjoining_scenes_keep_the_gap_together(tmp_path, write_scene, crs, transform, seed):
    write_scene("a")
    write_scene("b", crs=crs, transform=transform)
    split, dataset = make(tmp_path, seed, block_m=500, gap_m=60)
    ground = {name: [] for name in SPLITS}
    for source in dataset.sources:
        for name, cover in painted(split, source.image).items():
            assert cover.max() <= 1
            ground[name].append(centres(source.image, cover > 0, "EPSG:32633"))
    train, *others = (np.concatenate(ground[name]) for name in SPLITS)
    nearest = min(KDTree(other).query(train, p=np.inf)[0].min() for other in others)
    assert 60 + 9 <= nearest < 60 + 40  # between centres of pixels of 10 m, which may be turned
    assert len(train) > 20_000


def test_degrees_keep_the_gap_in_metres(tmp_path, write_scene):
    write_scene("a", crs="EPSG:4326", transform=from_origin(12.0, 60.0, 2e-4, 1e-4))
    split, dataset = make(tmp_path, block_m=400, gap_m=50)
    cover = painted(split, dataset.sources[0].image)
    train, other = (
        centres(dataset.sources[0].image, where, "EPSG:32633")
        for where in (cover["train"] > 0, cover["validation"] + cover["test"] > 0)
    )
    assert 50 <= KDTree(other).query(train, p=np.inf)[0].min() < 50 + 25


def test_blocks_without_labels_belong_to_no_split(tmp_path, write_scene):
    labels = np.full((240, 200), 255, dtype=np.uint8)
    labels[:120, :200] = LABELS[:120, :200]
    write_scene("a", labels=labels)
    split, dataset = make(tmp_path, block_px=40, gap_px=0)
    cover = sum(painted(split, dataset.sources[0].image).values())
    assert (cover[:120] == 1).all()
    assert (cover[120:] == 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_training_has_every_class_and_splits_have_their_shares(tmp_path, write_scene, seed):
    labels = LABELS.copy()
    labels[labels == 2] = 1
    labels[100:110, 90:100] = 2  # in one block only
    write_scene("a", labels=labels)
    split, dataset = make(tmp_path, seed, block_px=20, gap_px=0)
    cover = painted(split, dataset.sources[0].image)
    assert (labels[cover["train"] > 0] == 2).any()
    shares = [cover[name].mean() for name in SPLITS]
    assert shares == pytest.approx([0.65, 0.15, 0.2], abs=0.05)


def test_a_split_depends_on_the_seed_alone(tmp_path, write_scene):
    write_scene("a")
    splits = [make(tmp_path, seed, block_px=24)[0] for seed in (0, 0, 1)]
    assert splits[0] == splits[1]
    assert splits[0].regions != splits[2].regions


def test_a_seed_of_the_split_goes_before_that_of_the_run(tmp_path, write_scene):
    write_scene("a")
    dataset = find(tmp_path, DataConfig())
    fixed = DataConfig(split=SplitConfig(block_px=24, seed=1))
    free = DataConfig(split=SplitConfig(block_px=24))
    assert make_split(dataset, fixed, seed=0) == make_split(dataset, fixed, seed=7) == make_split(dataset, free, seed=1)
    with pytest.raises(ConfigError, match=r"data\.split\.seed is 0 or more, got -1"):
        SplitConfig(seed=-1)


def test_judging_blocks_are_groups_of_their_own(tmp_path, write_scene):
    write_scene("a")
    split, _ = make(tmp_path, block_px=40, gap_px=8)
    groups = [region.group for region in split.of("test") + split.of("validation")]
    assert len(set(groups)) == len(groups)
    assert {region.group for region in split.of("train")} == {None}


@pytest.mark.parametrize(
    ("settings", "gap"), [({"block_px": 40}, 10), ({"block_m": 1000}, 25), ({"block_px": 40, "gap_px": 3}, 3), ({}, 17)]
)
def test_the_default_gap_is_a_quarter_of_a_block_at_most(tmp_path, write_scene, settings, gap):
    write_scene("a", labels=np.tile(LABELS, (2, 2)))
    split, dataset = make(tmp_path, **settings)
    cover = painted(split, dataset.sources[0].image)
    assert split.gap_px == gap
    assert chebyshev_px(cover["train"], (cover["validation"] + cover["test"]) > 0) == gap


def test_large_scenes_have_a_gap_of_32_pixels(tmp_path, write_scene):
    write_scene("a", labels=np.tile(LABELS, (4, 5)))
    assert make(tmp_path)[0].gap_px == 32


# Groups and whole images.


def test_images_without_coordinates_are_dealt_whole(make_folder):
    folder = make_folder({f"i{n}": (32, 40) for n in range(10)})
    split, _ = make(folder)
    assert split.method == "groups"
    assert re.fullmatch(r"whole images: [67] train, [12] validation, 2 test", split.rule)
    assert all(region.window.height == 32 and region.window.width == 40 for region in split.regions)
    assert len({region.image for region in split.regions}) == 10


def test_groups_are_never_divided(make_folder):
    folder = make_folder({f"tile{t}_{n}": (16, 16) for t in range(6) for n in range(3)})
    config = DataConfig(group=r"tile\d")
    split = make_split(find(folder, config), config, seed=0)
    found = {name: {region.group for region in split.of(name)} for name in SPLITS}
    assert all(found.values())
    assert sum(len(groups) for groups in found.values()) == 6
    assert split.rule.startswith("whole groups: ")


def test_fewer_than_three_images_are_cut_in_blocks(make_folder):
    split, _ = make(make_folder({"a": (160, 160), "b": (160, 160)}), gap_px=4)
    assert split.method == "blocks"
    assert split.rule.startswith("blocks of 40 px: 32 with labels")


def test_many_lone_chips_with_coordinates_stay_whole(tmp_path, write_scene):
    for i in range(40):
        write_scene(f"chip{i}", transform=from_origin(200_000 + 10_000 * i, 5_000_000, 10, 10), labels=LABELS[:24, :20])
    split, _ = make(tmp_path, gap_px=4)
    assert split.method == "blocks"
    assert len(split.regions) == 40
    assert all(region.window.pixels == 24 * 20 for region in split.regions)


# Given splits.


@pytest.fixture
def given(make_folder):
    """Ten images: six to train, none to validate, four to test."""
    folder = make_folder({f"tile{n}": (32, 32) for n in range(10)})
    rows = [f"images/tile{n}.tif,labels/tile{n}.tif,{'train' if n < 6 else 'test'}" for n in range(10)]
    (folder / "index.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    return folder


def test_a_given_test_split_stays_and_validation_is_carved_from_training(given):
    split, _ = make(given, validation=0.3)
    assert {Path(r.image).stem for r in split.of("test")} == {f"tile{n}" for n in range(6, 10)}
    assert len(split.of("train")) == 4
    assert len(split.of("validation")) == 2
    assert (
        split.rule == "split given by the dataset, validation taken from its training part: whole images: 4 train, 2 validation"
    )


def test_no_validation_is_carved_if_none_is_wanted_or_one_is_given(given):
    assert make(given, validation=0)[0].of("validation") == ()
    text = (given / "index.csv").read_text().replace("tile0.tif,train", "tile0.tif,val")
    (given / "index.csv").write_text(text)
    split, _ = make(given)
    assert [Path(r.image).stem for r in split.of("validation")] == ["tile0"]
    assert split.rule == "split given by the dataset"


def test_an_explicit_rule_overrides_what_is_given(given):
    split, _ = make(given, rule="groups")
    assert split.method == "groups"
    assert {Path(r.image).stem for r in split.of("test")} != {f"tile{n}" for n in range(6, 10)}


# Listed splits.


@pytest.fixture
def tiles(make_folder):
    """Six images of three tiles."""
    return make_folder({f"{tile}_{part}": (32, 32) for tile in ("2_10", "2_11", "3_7") for part in "ab"})


def listed(folder: Path, lists: dict[str, tuple[str, ...]], *, group: str | None = r"^(\d+_\d+)", **split) -> Split:
    config = DataConfig(group=group, split=SplitConfig(listed=ListedSplit(**lists), **split))
    return make_split(find(folder, config), config, seed=0)


def test_groups_are_split_as_listed(tiles):
    split = listed(tiles, {"train": ("2_10",), "validation": ("3_7",), "test": ("2_11",)})
    found = {name: {Path(region.image).stem for region in split.of(name)} for name in SPLITS}
    assert found == {"train": {"2_10_a", "2_10_b"}, "validation": {"3_7_a", "3_7_b"}, "test": {"2_11_a", "2_11_b"}}
    assert split.rule == "split listed by group: 1 train, 1 validation, 1 test"
    assert split.method == "given"


def test_a_listed_split_may_lack_validation_and_leave_groups_out(tiles):
    split = listed(tiles, {"train": ("2_10",), "test": ("2_11",), "unused": ("3_7",)}, validation=0)
    assert {region.group for region in split.regions} == {"2_10", "2_11"}
    assert split.of("validation") == ()
    carved = listed(tiles, {"train": ("2_10", "3_7"), "test": ("2_11",)}, validation=0.4)
    assert {region.group for region in carved.of("validation")} < {"2_10", "3_7"}
    assert carved.rule.startswith(
        "split listed by group: 2 train, 1 test, validation taken from its training part: whole groups"
    )


def test_a_list_goes_before_what_the_folders_say(tmp_path, write_image):
    for split, tile in (("train", "1_1"), ("val", "1_2")):
        write_image(f"images/{split}/{tile}.tif", np.arange(768, dtype=np.uint8).reshape(3, 16, 16))
        write_image(f"labels/{split}/{tile}.tif", LABELS[:16, :16])
    split = listed(tmp_path, {"train": ("1_2",), "test": ("1_1",)}, validation=0)
    assert [(Path(region.image).stem, region.split) for region in split.regions] == [("1_1", "test"), ("1_2", "train")]


def test_every_group_is_listed_and_there(tiles):
    with pytest.raises(DatasetError) as error:
        listed(tiles, {"train": ("2_10",)})
    assert str(error.value) == (
        f"{tiles}: of the groups that data.group '^(\\\\d+_\\\\d+)' captures, 2_11, 3_7 are there but not listed; "
        "data.split.listed must name each in train, validation, test or unused, in quotes: YAML reads 2_10 as 210"
    )
    with pytest.raises(DatasetError, match="captures, 210, 9_9 are listed but not there"):
        listed(tiles, {"train": ("2_10", "210"), "test": ("2_11", "3_7", "9_9")})
    with pytest.raises(ConfigError, match=r"data\.split\.listed names groups, but the images have none; say with data\.group"):
        listed(tiles, {"train": ("2_10",)}, group=None)


# Random.


def test_random_tiles_are_dealt_without_a_gap(tmp_path, write_scene):
    write_scene("a")
    split, dataset = make(tmp_path, rule="random", block_px=20)
    cover = painted(split, dataset.sources[0].image)
    assert (sum(cover.values()) == 1).all()
    assert chebyshev_px(cover["train"], cover["test"] > 0) == 0
    assert "at random, no distance kept" in split.rule


# What cannot be done.


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"block_px": 200}, EmptySplit, "the train split is empty|the validation split is empty|the test split is empty"),
        (
            {"block_px": 40, "gap_px": 100},
            EmptySplit,
            r"the train split is empty .*make the blocks or the gap smaller \(data.split.block_px",
        ),
        ({"rule": "given"}, ConfigError, "data.split.rule is given, but neither an index.csv nor folders give a split"),
        (
            {"rule": "random", "gap_m": 5.0},
            ConfigError,
            "data.split.gap_m is in metres, but the random rule cuts tiles in pixels",
        ),
    ],
)
def test_a_split_that_cannot_be_made_is_an_error_with_the_fix(tmp_path, write_scene, settings, error, text):
    write_scene("a")
    with pytest.raises(error, match=text):
        make(tmp_path, **settings)


def test_metres_need_coordinates(tmp_path, write_scene):
    write_scene("a", crs=None)
    with pytest.raises(
        ConfigError, match=r"data\.split\.block_m is in metres, but no image has coordinates; set data\.split\.block_px"
    ):
        make(tmp_path, block_m=100.0)


def test_too_few_groups_are_an_error_that_names_the_fix(make_folder):
    with pytest.raises(EmptySplit, match=r"the test split is empty .*give more groups \(data.group\).*data.split.test=0"):
        make(make_folder({"a": (16, 16), "b": (16, 16)}), rule="groups")


def test_a_group_that_would_be_ignored_is_an_error(tmp_path, write_scene):
    write_scene("a")
    config = DataConfig(group="a", split=SplitConfig(rule="blocks"))
    with pytest.raises(ConfigError, match=r"data\.group has no effect with data\.split\.rule blocks"):
        make_split(find(tmp_path, config), config, seed=0)


# split.json


def test_how_labels_are_written_survives_the_file_where_it_is_not_plain(given, tmp_path):
    split, _ = make(given)
    assert split.coding == PLAIN
    save_split(split, tmp_path / "split.json")
    assert '"labels":' not in (tmp_path / "split.json").read_text()
    coding = Coding(
        values=(3, 1),
        ignored=(0, 9),
        colours=((1, 2, 3), (4, 5, 6)),
        ignored_colours=((0, 0, 0),),
        ignored_names=("cloud",),
        tolerance=2,
    )
    save_split(replace(split, coding=coding), tmp_path / "split.json")
    assert load_split(tmp_path / "split.json").coding == coding


def test_a_split_survives_its_file_and_a_move(given, tmp_path):
    split, _ = make(given)
    path = tmp_path / "split.json"
    save_split(split, path)
    assert load_split(path) == split
    assert '"images/tile0.tif"' in path.read_text()
    moved = load_split(path, root=Path("/elsewhere"))
    assert moved.regions[0].image == str(Path("/elsewhere") / Path(split.regions[0].image).relative_to(given))
    assert not list(tmp_path.glob("*.part"))


def test_a_split_of_another_format_or_none_is_an_error(given, tmp_path):
    path = tmp_path / "split.json"
    with pytest.raises(MissingFile, match="is written when training starts"):
        load_split(path)
    path.write_text('{"format": 99}')
    with pytest.raises(DatasetError, match="has format 99, this version reads 1"):
        load_split(path)


def test_regions_change_nothing_but_what_is_asked(given):
    """`Split` is a value: equal contents are equal."""
    split, _ = make(given)
    assert replace(split, seed=1) != split
    assert replace(split) == split

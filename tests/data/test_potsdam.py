"""ISPRS Potsdam as its publisher delivers it and as mmsegmentation converts it, from files to a trained model, in miniature.

The tiles are made here, with the true names, colours, numbers and folders: the real ones may not be passed on.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from terralean import recipes
from terralean.cli import app
from terralean.data.conventions import check_labels
from terralean.data.index import find
from terralean.data.reading import Reader
from terralean.data.split import make_split
from terralean.errors import DatasetError, LabelError
from terralean.inspect.dataset import describe_dataset
from terralean.raster.grid import Window
from terralean.train.config import Experiment
from terralean.train.run import run
from terralean.weights.card import read_card

SIZE = 64
TRAIN, TEST = ("2_10", "2_12", "6_7"), ("2_13", "7_13")
SHARES = (0.28, 0.26, 0.23, 0.15, 0.03, 0.05)
COLOURS = np.array(
    [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0)], dtype=np.uint8
)
BOUNDARY = 6  # among the colours
WINDOW = Window(row=0, col=0, height=SIZE, width=SIZE)
MMSEG = ("data.images=img_dir", "data.labels=ann_dir", "data.label_values=[1, 2, 3, 4, 5]", "data.ignore=[0, 6]")
NAMES = ("impervious surface", "building", "low vegetation", "tree", "car")


def truth(tile: str) -> NDArray[np.int64]:
    """Numbers 0 to 5 of a tile, in blocks of 8 px; every class is there."""
    rng = np.random.default_rng(int(tile.replace("_", "")))
    blocks = rng.choice(6, (SIZE // 8, SIZE // 8), p=SHARES)
    blocks[3, 1:7] = range(6)
    return np.kron(blocks, np.ones((8, 8), dtype=int))


def with_boundaries(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same with a boundary left of each object, as in the set called noBoundary."""
    edge = np.zeros(numbers.shape, dtype=bool)
    edge[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    return np.where(edge, BOUNDARY, numbers)


def image(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Infrared, red and green that tell the class."""
    noise = np.random.default_rng(0).integers(0, 20, (3, *numbers.shape))
    return (COLOURS[numbers].transpose(2, 0, 1) * 0.8 + noise).astype(np.uint8)


@pytest.fixture
def delivery(tmp_path, write_image) -> Path:
    """Five tiles with the folders and names of the publisher."""
    root = tmp_path / "Potsdam"
    for tile in TRAIN + TEST:
        numbers = truth(tile)
        files = {
            f"2_Ortho_RGB/top_potsdam_{tile}_RGB.tif": image(numbers)[::-1],
            f"3_Ortho_IRRG/top_potsdam_{tile}_IRRG.tif": image(numbers),
            f"5_Labels_all/top_potsdam_{tile}_label.tif": paint(numbers),
            f"5_Labels_all_noBoundary/top_potsdam_{tile}_label_noBoundary.tif": paint(with_boundaries(numbers)),
        }
        for name, values in files.items():
            write_image(f"Potsdam/{name}", values)
    return root


def paint(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(COLOURS[numbers].transpose(2, 0, 1))


@pytest.fixture
def converted(tmp_path, write_image):
    """A function that writes clips of 32 px as mmseg's converter does: 0 boundary, 1 to 6, or what `number` makes of 0 to 6."""

    def convert(number=lambda numbers: (numbers + 1) % 7, *, tiles=TRAIN + TEST, boundary: bool = True) -> Path:
        for tile in tiles:
            split = "train" if tile in TRAIN else "val"
            values = with_boundaries(truth(tile)) if boundary else truth(tile)
            for x in (0, 32):
                for y in (0, 32):
                    name = f"{tile}_{x}_{y}_{x + 32}_{y + 32}.png"
                    part = (slice(y, y + 32), slice(x, x + 32))
                    write_image(f"mmseg/img_dir/{split}/{name}", image(truth(tile))[:, *part])
                    write_image(f"mmseg/ann_dir/{split}/{name}", number(values)[part].astype(np.uint8))
        return tmp_path / "mmseg"

    return convert


def recipe(*changes: str) -> Experiment:
    """The published recipe with the light head, for the tiles there are, and two steps."""
    lists = f"data.split.listed={{train: {list(TRAIN)}, test: {list(TEST)}}}"
    small = ("data.tile_px=32", "tiling.tile_px=32", "tiling.overlap_px=8", "train.steps=2", "train.validate_every=2")
    quick = ("train.batch=2", "train.warmup_steps=1", "train.workers=0")
    return recipes.read("potsdam_lemevit_tiny_light", changes=[lists, *small, *quick, *changes])


def labels(root: Path, experiment: Experiment) -> dict[str, NDArray[np.uint8]]:
    """Labels by the stem of their image, as training sees them."""
    found = find(root, experiment.data)
    reader = Reader(classes=found.classes, coding=found.coding, config=experiment.data)
    return {
        Path(source.image).stem: reader.labels(source.image, source.label, reader.grid(source.image).window)
        for source in found.sources
    }


def proposed(message: str) -> list[str]:
    """The settings that an error says to make."""
    return re.findall(r'--set "(data\.\w+=.+?)"', message)


# What the recipes say.


@pytest.mark.parametrize("name", [name for name in recipes.names() if name.startswith("potsdam_")])
def test_recipes_share_the_published_split_and_schedule(name):
    experiment = recipes.read(name)
    lists = experiment.data.split.listed
    rows = {
        "2": range(10, 13),
        "3": range(10, 13),
        "4": range(10, 13),
        "5": range(10, 13),
        "6": range(7, 13),
        "7": range(7, 13),
    }
    assert set(lists.train) == {f"{row}_{col}" for row, cols in rows.items() for col in cols}
    others = {"2": (13, 14), "3": (13, 14), "4": (13, 14, 15), "5": (13, 14, 15), "6": (13, 14, 15), "7": (13,)}
    assert set(lists.test) == {f"{row}_{col}" for row, cols in others.items() for col in cols}
    assert (len(lists.train), len(lists.test), lists.validation, lists.unused) == (24, 14, (), ())
    assert experiment.data.classes == NAMES
    first = recipes.read("potsdam_lemevit_tiny_upernet")
    assert replace(experiment.data, classes=NAMES) == first.data
    published = {"steps": 80_000, "batch": 40, "lr": 4e-4, "weight_decay": 0.05, "warmup_steps": 1500, "schedule": "poly"}
    assert {key: getattr(experiment.train, key) for key in published} == published
    assert (experiment.train.final_lr, experiment.train.clip_norm, experiment.train.ema_decay) == (0, None, None)
    assert (experiment.train.loss.class_weights, experiment.train.loss.dice, experiment.train.loss.auxiliary) == (
        "none",
        0,
        0.4,
    )


# From the publisher's files.


@pytest.mark.parametrize(
    ("folder", "make"), [("5_Labels_all", truth), ("5_Labels_all_noBoundary", lambda t: with_boundaries(truth(t)))]
)
def test_delivered_colours_become_five_classes_without_clutter_and_boundary(delivery, folder, make):
    found = labels(delivery, recipe(f"data.labels={folder}"))
    assert len(found) == 5
    for tile in TRAIN + TEST:
        expected = make(tile)
        np.testing.assert_array_equal(found[f"top_potsdam_{tile}_IRRG"], np.where(expected > 4, 255, expected))


def test_delivered_tiles_are_split_as_listed(delivery):
    config = recipe().data
    split = make_split(find(delivery, config), config, seed=0)
    assert {region.group for region in split.of("train")} == set(TRAIN)
    assert {region.group for region in split.of("test")} == set(TEST)
    assert split.of("validation") == ()


def test_an_incomplete_delivery_names_the_missing_tiles(delivery):
    config = recipes.read("potsdam_lemevit_tiny_light").data
    with pytest.raises(DatasetError, match=r"captures, 2_11, 2_14, 3_10, 3_11, 3_12 and 28 more are listed but not there"):
        make_split(find(delivery, config), config, seed=0)


def test_a_run_learns_and_is_scored_on_five_classes(delivery, tmp_path):
    experiment = recipe()
    run(experiment, data=delivery, out=tmp_path / "run", device="cpu")
    card = read_card(tmp_path / "run")
    assert card.classes.names == NAMES
    assert card.classes.colours == tuple(map(tuple, COLOURS[:5].tolist()))
    assert card.training.split == "split listed by group: 3 train, 2 test"
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--device", "cpu", "--json"])
    scores = json.loads(result.stdout)
    support = np.bincount(np.concatenate([truth(tile).ravel() for tile in TEST]))[:5]
    assert [(row["name"], row["support_px"]) for row in scores["classes"]] == list(zip(NAMES, support.tolist(), strict=True))
    assert scores["mF1"]["value"] == pytest.approx(np.mean([row["F1"]["value"] for row in scores["classes"]]))


def test_a_run_is_scored_on_labels_of_another_kind(delivery, converted, tmp_path):
    """Learnt from colours, scored on numbers in other folders: each clip counts, clutter does not."""
    run(recipe(), data=delivery, out=tmp_path / "run", device="cpu")
    root = converted(lambda numbers: numbers, tiles=TEST, boundary=False)
    command = [
        "evaluate",
        str(tmp_path / "run"),
        "--data",
        str(root),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--json",
    ]
    scores = json.loads(CliRunner().invoke(app, command).stdout)
    assert sum(row["support_px"] for row in scores["classes"]) == sum(int((truth(tile) < 5).sum()) for tile in TEST)
    converted(tiles=TEST)
    with pytest.raises(LabelError, match="counted one higher all 8 label files fit"):
        CliRunner().invoke(app, command, catch_exceptions=False)


@pytest.mark.parametrize("off", [3, 9])
def test_stray_pixels_are_read_up_to_the_tolerance_of_the_recipe(delivery, write_image, off):
    stored = paint(truth("2_10"))
    place = np.argwhere(truth("2_10") == 4)[:7].T
    stored[0, *place] = 255 - off
    write_image("Potsdam/5_Labels_all/top_potsdam_2_10_label.tif", stored)
    experiment = recipe()
    if off <= experiment.data.colour_tolerance:
        check_labels(find(delivery, experiment.data), experiment.data)
        assert (labels(delivery, experiment)["top_potsdam_2_10_IRRG"][*place] == 4).all()
        return
    with pytest.raises(
        LabelError, match=r"2_10_label\.tif holds colours that are no class: #f6ff00 \(7 px, nearest: car #ffff00, 9"
    ):
        check_labels(find(delivery, experiment.data), experiment.data)


def test_boundaries_that_nobody_ignores_are_an_error(delivery):
    config = recipe("data.labels=5_Labels_all_noBoundary", 'data.ignore=["#ff0000"]').data
    with pytest.raises(LabelError, match=r"label_noBoundary\.tif holds colours that are no class: #000000 \(\d+ px, nearest: "):
        check_labels(find(delivery, config), config)


# From mmseg's folders, and what is mistaken for them.


def test_converted_clips_are_the_delivered_labels(delivery, converted):
    ours = labels(delivery, recipe("data.labels=5_Labels_all_noBoundary"))
    theirs = labels(converted(), recipe(*MMSEG))
    assert len(theirs) == 20
    for name, clip in theirs.items():
        row, col, x, y, *_ = name.split("_")
        np.testing.assert_array_equal(clip, ours[f"top_potsdam_{row}_{col}_IRRG"][int(y) :, int(x) :][:32, :32])


def test_converted_clips_train_and_keep_the_published_split(converted, tmp_path):
    root = converted()
    result = run(recipe(*MMSEG), data=root, out=tmp_path / "run", device="cpu")
    assert result.split == "split listed by group: 3 train, 2 test"
    assert read_card(tmp_path / "run").training.images == 12


def test_converted_clips_for_the_recipe_of_delivered_labels_stop_with_what_to_set(converted, tmp_path):
    root = converted()
    folders = MMSEG[:2]
    with pytest.raises(LabelError) as error:
        run(recipe(*folders), data=root, out=tmp_path / "run", device="cpu")
    assert "holds 6 (" in str(error.value)
    assert "as for ISPRS Potsdam as mmseg's converter writes it (0 boundary, 1 to 5 the classes, 6 clutter)" in str(error.value)
    changes = proposed(str(error.value))
    assert changes == ["data.label_values=[1, 2, 3, 4, 5]", "data.ignore=[0, 6, '#000000', '#ff0000']"]
    fixed = labels(root, recipe(*folders, *changes))
    expected = labels(root, recipe(*MMSEG))
    assert all(np.array_equal(fixed[name], expected[name]) for name in expected)


def test_delivered_numbers_for_the_recipe_of_converted_clips_stop_with_what_to_set(converted):
    root = converted(lambda numbers: numbers, boundary=False)
    config = recipe(*MMSEG).data
    with pytest.raises(LabelError, match="no label holds 6, while 0 to 5 are there") as error:
        check_labels(find(root, config), config)
    fixed = recipe(*MMSEG[:2], *proposed(str(error.value)))
    for name, clip in labels(root, fixed).items():
        row, col, x, y, *_ = name.split("_")
        expected = truth(f"{row}_{col}")[int(y) :, int(x) :][:32, :32]
        np.testing.assert_array_equal(clip, np.where(expected == 5, 255, expected))


def test_training_in_one_convention_and_validation_in_the_other_stops(converted):
    """Accuracy in training is high then, and next to nothing in validation."""
    converted(lambda numbers: numbers, tiles=TRAIN, boundary=False)
    root = converted(tiles=TEST)
    config = recipe(*MMSEG[:2]).data
    with pytest.raises(LabelError) as error:
        check_labels(find(root, config), config)
    low, high = str(error.value).split("; ")[:2]
    assert low.startswith("the labels are numbered in two ways: 0 to 5 in ")
    assert "ann_dir/train/2_10_0_0_32_32.png (train)" in low
    assert high.startswith("0 to 6 in ")
    assert "ann_dir/val/2_13_0_0_32_32.png (test)" in high


@pytest.mark.parametrize("number", [lambda numbers: (numbers + 1) % 7, lambda numbers: numbers % 6], ids=["mmseg", "official"])
def test_inspect_tells_whose_numbers_they_are(converted, number):
    root = converted(number, boundary=number(np.array(6)) == 0 and number(np.array(5)) == 6)
    report = describe_dataset(root, recipes.data_config([]))
    (note,) = [finding for finding in report.findings if "the labels hold the numbers of" in finding.message]
    assert "ISPRS Potsdam as" in note.message
    read = recipes.data_config([f"data.classes={list(NAMES)}", *proposed(note.fix)])
    assert [share.name for share in describe_dataset(root, read).classes] == list(NAMES)


def test_inspect_tells_what_is_wrong_with_converted_clips(converted):
    report = describe_dataset(converted(), recipe(*MMSEG[:2]).data)
    errors = [finding.message for finding in report.findings if finding.severity == "error"]
    assert any("counted one higher all 20 label files fit" in message for message in errors)

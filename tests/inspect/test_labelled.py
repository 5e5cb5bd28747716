"""A report of labelled images counts what is there and lists all that is wrong; folders are told apart by layout."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terralean.data.config import DataConfig
from terralean.data.scene_config import SceneDataConfig, SceneSplitConfig
from terralean.errors import MissingFile
from terralean.inspect.describe import describe, reads_as
from terralean.inspect.labelled import describe_labelled, holds_labelled_images
from terralean.inspect.words import tell


def save(path: Path, *, height=20, width=20, seed=0, mode="RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values if mode == "RGB" else values[..., 0]).save(path)
    return path


def fill(root: Path, counts: dict[str, int], **size) -> Path:
    """A folder per class; every image another."""
    seed = 0
    for name, count in counts.items():
        for i in range(count):
            seed += 1
            save(root / name / f"{name}{i}.png", seed=seed, **size)
    return root


def messages(report, severity: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.severity == severity]


def test_the_facts_of_good_images(tmp_path):
    report = describe_labelled(fill(tmp_path, {"a": 12, "b": 20}), SceneDataConfig())
    save(tmp_path / "a" / "a0.png", height=18, width=40, seed=99)
    save(tmp_path / "a" / "a1.png", height=16, width=17, seed=98)
    report = describe_labelled(tmp_path, SceneDataConfig(views="many"))
    assert (report.images, report.layout) == (32, "a folder per class, no split given")
    assert (report.smallest_px, report.median_px, report.largest_px) == ((16, 17), (20, 20), (18, 40))
    assert [(share.name, share.images, share.share) for share in report.classes] == [("a", 12, 0.375), ("b", 20, 0.625)]
    assert {name: (split.images, split.class_images) for name, split in report.splits.items()} == {
        "train": (21, (8, 13)),
        "validation": (5, (2, 3)),
        "test": (6, (2, 4)),
    }
    assert report.rule.startswith("images at random, each class in the same shares")
    assert report.leakage.startswith("no leak found: ")
    assert [band.name for band in report.values] == ["red", "green", "blue"]
    assert all(120 < band.mean < 134 and 68 < band.std < 80 for band in report.values)  # of numbers drawn evenly from 0..254
    assert report.findings == ()
    assert json.loads(json.dumps(asdict(report), allow_nan=False))["kind"] == "labelled images"


def test_in_words(tmp_path):
    text = tell(describe(str(fill(tmp_path, {"a": 12, "b": 20})))).splitlines()
    assert text[0] == f"{tmp_path}: labelled images, a class for each as a whole; a folder per class, no split given"
    for line in (
        "  images      32, 20 x 20 px (width x height)",
        "  classes     2, least images 12 (a), most 20 (b)",
        "  class       a: 12 images, 37.50%",
        "  test        6 images",
    ):
        assert line in text
    many = {f"c{i:03d}": 3 for i in range(61)}
    text = tell(describe(str(fill(tmp_path / "many", many, height=16, width=16)))).splitlines()
    assert "  classes     61, 3 images each" in text
    assert not [line for line in text if line.startswith("  class  ")]


def test_every_file_that_cannot_be_used_is_named(tmp_path):
    fill(tmp_path, {"a": 12, "b": 12})
    broken = save(tmp_path / "a" / "broken.jpg", height=80, width=80)
    broken.write_bytes(broken.read_bytes()[:-200])
    save(tmp_path / "b" / "tiny.png", height=1, width=1)
    report = describe_labelled(tmp_path, SceneDataConfig())
    first, second = messages(report, "error")
    assert "broken.jpg breaks off" in first
    assert "tiny.png is 1 x 1 px" in second
    assert report.unreadable == (first, second)
    assert (report.images, report.splits) == (24, {})
    assert {f.fix for f in report.findings} == {"mend or remove it, or train without such images: --set data.unreadable=skip"}
    skipped = describe_labelled(tmp_path, SceneDataConfig(unreadable="skip"))
    assert messages(skipped, "warning") == [first, second]
    assert sum(split.images for split in skipped.splits.values()) == 24


def test_many_bad_files_are_not_all_told(tmp_path):
    fill(tmp_path, {"a": 12, "b": 12})
    for i in range(25):
        save(tmp_path / "b" / f"tiny{i}.png", height=1, width=1, seed=i)
    errors = messages(describe_labelled(tmp_path, SceneDataConfig()), "error")
    assert len(errors) == 21
    assert errors[-1] == "5 more images cannot be used"


def test_images_of_another_kind_and_a_class_without_a_good_image(tmp_path):
    fill(tmp_path, {"a": 12, "b": 12})
    save(tmp_path / "b" / "grey.png", mode="L")
    save(tmp_path / "c" / "tiny.png", height=1, width=1)
    errors = messages(describe_labelled(tmp_path, SceneDataConfig()), "error")
    assert len(errors) == 3
    assert "images of one dataset must be of one kind" in errors[1]
    assert "--set data.colour=rgb" in errors[1]
    assert errors[2] == "none of the images of c can be used"


def test_a_single_class_and_an_empty_one(tmp_path):
    fill(tmp_path / "one", {"a": 12})
    report = describe_labelled(tmp_path / "one", SceneDataConfig())
    assert "but one class only, a" in messages(report, "error")[0]
    assert report.layout == "not understood"
    fill(tmp_path / "empty", {"a": 12, "b": 12})
    (tmp_path / "empty" / "c").mkdir()
    (message,) = messages(describe_labelled(tmp_path / "empty", SceneDataConfig()), "error")
    assert message == f"{tmp_path}/empty/c is empty; put images of class c there, or take the folder away"


def test_a_class_in_test_that_is_not_in_train(tmp_path):
    fill(tmp_path / "train", {"a": 12, "b": 12})
    fill(tmp_path / "test", {"a": 4, "c": 4}, height=21)
    (message,) = messages(describe_labelled(tmp_path, SceneDataConfig(split=SceneSplitConfig(validation=0))), "error")
    assert "no training image of c (4 in test" in message


def test_a_class_that_no_test_image_has(tmp_path):
    fill(tmp_path / "train", {"a": 12, "b": 12})
    fill(tmp_path / "test", {"a": 4}, height=21)
    report = describe_labelled(tmp_path, SceneDataConfig(split=SceneSplitConfig(validation=0)))
    assert messages(report, "note") == ["the test split has no image of b"]


def test_copies_leak_and_may_contradict(tmp_path):
    fill(tmp_path / "train", {"a": 12, "b": 12})
    fill(tmp_path / "test", {"a": 12, "b": 12}, height=21)
    for place in ("train/a/x.png", "test/a/x.png", "test/b/y.png"):
        save(tmp_path / place, seed=1000)
    report = describe_labelled(tmp_path, SceneDataConfig(split=SceneSplitConfig(validation=0)))
    assert report.duplicates == (tuple(str(tmp_path / name) for name in ("test/a/x.png", "test/b/y.png", "train/a/x.png")),)
    copies, classes, leak = messages(report, "warning")
    assert copies == "1 image is there more than once: test/a/x.png = test/b/y.png = train/a/x.png"
    assert classes == "the same pixels have two classes: test/a/x.png (a) = test/b/y.png (b) = train/a/x.png (a)"
    assert leak == report.leakage
    assert leak.startswith("LEAKS: 2 of 26 test images hold the same pixels as a training image")


def test_few_images_uneven_classes_and_long_images_are_notes(tmp_path):
    fill(tmp_path, {"a": 3, "b": 30})
    save(tmp_path / "b" / "long.png", height=16, width=90, seed=77)
    notes = messages(describe_labelled(tmp_path, SceneDataConfig()), "note")
    assert notes[0] == "fewer than 10 images of a (3)"
    assert notes[1].startswith("classes are uneven: 31 images of b, 3 of a;")
    assert notes[2] == (
        "1 of 34 images are so long that their centre shows less than half of them (long.png, 90 x 16 px, for one)"
    )
    assert len(notes) == 3
    assert len(messages(describe_labelled(tmp_path, SceneDataConfig(views="many")), "note")) == 2


@pytest.mark.parametrize(
    ("files", "index", "labelled"),
    [
        (("a/1.png", "b/2.png"), None, True),
        (("train/a/1.png", "test/b/2.png"), None, True),
        (("train_labels.txt", "all_img/1.png"), None, True),
        (("images/1.png", "masks/1.png"), None, False),
        (("images/1.png", "labels/1.png"), None, False),
        (("img_dir/1.png", "ann_dir/1.png"), None, False),
        (("train/images/1.png", "train/masks/1.png"), None, False),
        (("scene.tif", "scene_labels.tif"), None, False),
        (("a/1.png",), "path,label\na/1.png,forest\n", True),
        (("a/1.png",), "path,label\na/1.png,3\n", True),
        (("a/1.png",), "path,label,class\na/1.png,,forest\n", True),
        (("a/1.png",), "path,class\na/1.png,forest\n", True),
        (("a/1.png", "m/1.png"), "path,label\na/1.png,m/1.png\n", False),
        (("a/1.png",), "path,label\na/1.png,gone/1.gpkg\n", False),
        (("a/1.png",), "path,split\na/1.png,train\n", False),
        ((), None, False),
    ],
)
def test_layouts_are_told_apart(tmp_path, files, index, labelled):
    for name in files:
        save(tmp_path / name) if name.endswith((".png", ".tif")) else (tmp_path / name).touch()
    if index is not None:
        (tmp_path / "index.csv").write_text(index)
    assert holds_labelled_images(tmp_path) == labelled
    assert reads_as(str(tmp_path)) is (SceneDataConfig if labelled else DataConfig)


def test_a_config_says_for_certain_what_a_folder_holds(tmp_path):
    fill(tmp_path, {"a": 12, "b": 12})
    assert describe(str(tmp_path)).kind == "labelled images"
    assert describe(str(tmp_path), config=SceneDataConfig()).kind == "labelled images"
    assert describe(str(tmp_path), config=DataConfig()).kind == "dataset"


def test_a_folder_that_is_not_there_raises(tmp_path):
    with pytest.raises(MissingFile, match="is no folder that is there"):
        describe_labelled(tmp_path / "none", SceneDataConfig())


def test_real_sets_have_no_errors(shared):
    report = describe(str(shared / "data/rgb/cls/rsscn7"))
    assert (report.images, len(report.classes)) == (28, 7)
    assert report.smallest_px == report.largest_px == (400, 400)
    assert report.leakage.startswith("no leak found")
    assert {finding.severity for finding in report.findings} == {"note"}

"""A dataset's report counts what is there and lists all that is wrong."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

from terralean.data.config import DataConfig, SplitConfig
from terralean.errors import MissingFile
from terralean.inspect.dataset import describe_dataset

IMAGE = np.random.default_rng(1).integers(1, 250, (3, 40, 40), dtype=np.uint8)
TWO = (np.arange(1600).reshape(40, 40) // 200 % 2).astype(np.uint8)


def messages(report, severity: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.severity == severity]


def test_the_facts_of_a_good_dataset(make_dataset):
    report = describe_dataset(make_dataset(crs="EPSG:32633"), DataConfig())
    assert report.images == 10
    assert report.smallest_px == report.largest_px == (40, 40)
    assert report.crs == ("EPSG:32633",)
    assert [(share.name, share.pixels, share.share) for share in report.classes] == [
        ("class 0", 8000, 0.5),
        ("class 1", 8000, 0.5),
    ]
    assert (report.ignored_share, report.nodata_share) == (0, 0)
    assert {name: split.images for name, split in report.splits.items()} == {"train": 6, "validation": 2, "test": 2}
    assert sum(sum(split.class_pixels) for split in report.splits.values()) == 16_000
    assert report.leakage.startswith("no leak found: ")
    assert report.leaked_share == 0
    assert report.findings == ()
    assert json.loads(json.dumps(asdict(report), allow_nan=False))["kind"] == "dataset"


def test_all_misaligned_pairs_are_listed(make_dataset, write_image):
    folder = make_dataset(crs="EPSG:32633")
    write_image("labels/i3.tif", TWO[:39])
    shifted = Affine(10, 0, 500_000 + 2000 * 7 + 30, 0, -10, 5_000_000)
    write_image("labels/i7.tif", TWO, transform=shifted)
    report = describe_dataset(folder, DataConfig())
    assert len(report.misaligned) == 2
    assert "i3.tif is 40 x 39 px, its image" in report.misaligned[0]
    assert "i7.tif lies 3.00 px off its image" in report.misaligned[1]
    assert messages(report, "error") == list(report.misaligned)
    assert report.splits == {}


def test_values_that_are_no_class_are_listed_by_file(make_dataset, write_image):
    folder = make_dataset()
    for i, value in ((2, 9), (5, 17)):
        labels = TWO.copy()
        labels[0, :3] = value
        write_image(f"labels/i{i}.tif", labels, crs=None)
    report = describe_dataset(folder, DataConfig(classes=("dry", "wet")))
    assert ["i2.tif holds 9 (3 px)" in report.faulty_labels[0], "i5.tif holds 17 (3 px)" in report.faulty_labels[1]] == [
        True,
        True,
    ]


def test_labels_counted_from_one_are_told_once_for_all_files(make_dataset, write_image):
    folder = make_dataset(4)
    for i in range(4):
        write_image(f"labels/i{i}.tif", TWO + 1, crs=None)
    report = describe_dataset(folder, DataConfig(classes=("dry", "wet")))
    (message,) = messages(report, "error")
    assert message.endswith(
        'counted one higher all 4 label files fit; if they are: --set "data.label_values=[1, 2]" --set "data.ignore=[0]"'
    )
    assert len(report.faulty_labels) == 4
    fitting = describe_dataset(folder, DataConfig(classes=("dry", "wet"), label_values=(1, 2), ignore=(0,)))
    assert [(share.name, share.share) for share in fitting.classes] == [("dry", 0.5), ("wet", 0.5)]
    assert messages(fitting, "error") == []


@pytest.mark.parametrize(("trust", "severity"), [(False, "error"), (True, "warning")])
def test_numbers_that_are_hardly_meant_are_errors_unless_trusted(make_dataset, trust, severity):
    """0 and 1 are there, 2 is listed and is not: as if the recipe counted from one and the labels from zero."""
    config = DataConfig(classes=("dry",), label_values=(1,), ignore=(0, 2), trust_labels=trust)
    (message,) = [m for m in messages(describe_dataset(make_dataset(4), config), severity) if "no label holds" in m]
    assert message.startswith(
        "no label holds 2, while 0 to 1 are there; read are 1 dry, 0 ignored, 2 ignored; counted one lower"
    )


def fix_of(report, message: str) -> str:
    return next(finding.fix for finding in report.findings if finding.message == message)


def test_numbers_with_gaps_are_classes_of_their_own_if_somebody_says_so(make_dataset, write_image):
    folder = make_dataset()
    labels = TWO.copy()
    labels[0, :9] = 5
    write_image("labels/i0.tif", labels, crs=None)
    report = describe_dataset(folder, DataConfig())
    fix = fix_of(report, "no pixel is labelled class 2, class 3, class 4")
    assert fix.startswith('if the classes are the numbers that there are: --set "data.label_values=[0, 1, 5]"; else label some')


def test_what_a_given_split_lacks_is_mended_by_images_not_by_seeds(make_dataset, write_image):
    folder = make_dataset()
    names = sorted(path.name for path in (folder / "images").iterdir())
    lines = [f"images/{name},labels/{name},{'test' if i else 'train'}" for i, name in enumerate(names)]
    (folder / "index.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    labels = TWO.copy()
    labels[0, 0] = 2
    write_image(f"labels/{names[1]}", labels, crs=None)
    report = describe_dataset(folder, DataConfig(split=SplitConfig(validation=0)))
    assert fix_of(report, "the train split has no pixel of class 2").startswith(
        "give an image that has it to that split, or let"
    )


def test_classes_without_pixels_and_scarce_ones(make_dataset, write_image):
    folder = make_dataset()
    labels = TWO.copy()
    labels[0, 0] = 2
    write_image("labels/i0.tif", labels, crs=None)
    report = describe_dataset(folder, DataConfig(classes=("a", "b", "c", "d")))
    assert messages(report, "error") == ["no pixel is labelled d"]
    assert fix_of(report, "no pixel is labelled d").startswith("label some, or leave the class out")
    assert "less than 0.1% of the labels: c (1 px)" in messages(report, "note")
    assert "the test split has no pixel of c" in messages(report, "note")


def test_no_label_and_a_single_class_are_errors(make_dataset, write_image):
    folder = make_dataset(3)
    for i in range(3):
        write_image(f"labels/i{i}.tif", np.full((40, 40), 255, np.uint8), crs=None)
    report = describe_dataset(folder, DataConfig(classes=("a", "b")))
    assert messages(report, "error") == ["no pixel has a label"]
    for i in range(3):
        write_image(f"labels/i{i}.tif", np.where(TWO == 1, 255, 0).astype(np.uint8), crs=None)
    report = describe_dataset(folder, DataConfig())
    assert messages(report, "error") == ["all labels are of one class, class 0"]
    assert report.ignored_share == 0.5


def test_duplicates_are_found_and_leak(make_dataset, write_image):
    folder = make_dataset()
    for i in (0, 1, 2, 3, 4):
        write_image(f"images/i{i}.tif", IMAGE, crs=None)
    report = describe_dataset(folder, DataConfig())
    assert [[Path(path).name for path in twins] for twins in report.duplicates] == [[f"i{i}.tif" for i in range(5)]]
    first, second = messages(report, "warning")
    assert first == "1 images are there more than once: i0.tif = i1.tif = i2.tif = i3.tif = i4.tif"
    assert second.startswith("LEAKS: ")
    assert second == report.leakage


def test_undeclared_nodata_is_named_by_image(make_dataset, write_image):
    folder = make_dataset(4)
    values = IMAGE.copy()
    values[:, :10] = 255
    write_image("images/i1.tif", values, crs=None)
    report = describe_dataset(folder, DataConfig())
    assert messages(report, "warning") == [
        "pixels of one value in every band, as nodata has, but not declared as such: i1.tif (25.0% 255)"
    ]


def test_a_random_split_is_warned_of(make_dataset):
    config = DataConfig(split=SplitConfig(rule="random", block_px=10))
    report = describe_dataset(make_dataset(3), config)
    assert messages(report, "warning") == [report.leakage]
    assert report.leakage.startswith("LEAKS: ")
    assert report.leaked_share > 0.5


def test_what_find_refuses_is_a_finding(make_dataset, write_image):
    folder = make_dataset(3)
    write_image("images/alone.tif", IMAGE)
    report = describe_dataset(folder, DataConfig())
    assert report.layout == "not understood"
    assert "images/alone.tif has no mask" in messages(report, "error")[0]


def test_an_impossible_split_is_a_finding(make_dataset):
    report = describe_dataset(make_dataset(2), DataConfig(split=SplitConfig(rule="groups")))
    assert "the test split is empty" in messages(report, "error")[0]
    assert report.images == 2


def test_a_folder_that_is_not_there_raises(tmp_path):
    with pytest.raises(MissingFile, match="is not there"):
        describe_dataset(tmp_path / "none", DataConfig())

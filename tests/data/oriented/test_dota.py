import numpy as np
import pytest

from terralean.data.oriented.dota import (
    CLASSES_10,
    CLASSES_15,
    CLASSES_20,
    read_labels,
    read_results,
    write_labels,
    write_results,
)
from terralean.data.oriented.record import Detections
from terralean.errors import LabelError, MissingFile, OutputFailed
from terralean.spec import Classes

SHIP = "1054 1028 1063.5 1011 1111 1040 1112 1062 ship 1"
CLASSES = Classes.named(["ship", "large vehicle"])


def write(tmp_path, text, name="P1.txt"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_file_with_its_headers(tmp_path):
    text = f"imagesource:GoogleEarth\ngsd:0.146343\n{SHIP}\n-3.0 2 4 5 6 7 8 9 baseball-diamond 0\n"
    found = read_labels(write(tmp_path, text))
    assert found.facts == {"imagesource": "GoogleEarth", "gsd": "0.146343"}
    assert found.names == ("ship", "baseball-diamond")
    assert found.polygons.tolist() == [[1054, 1028, 1063.5, 1011, 1111, 1040, 1112, 1062], [-3, 2, 4, 5, 6, 7, 8, 9]]
    assert found.difficult.tolist() == [1, 0] and found.places == ("line 3", "line 4")


@pytest.mark.parametrize(
    "text",
    [
        f"{SHIP}\n",  # no header, as in version 1.5 patches
        f"\ufeffimagesource:GF\r\ngsd:null\r\n{SHIP}\r\n\r\n",  # Windows, empty lines, a byte order mark
        f"acquisition dates:2016-05-04\nimagesource:GoogleEarth\ngsd:\n  {SHIP}  ",  # version 2.0's facts, no last newline
        SHIP.replace(" ", "\t"),
    ],
)
def test_forms_that_are_about(tmp_path, text):
    found = read_labels(write(tmp_path, text))
    assert found.names == ("ship",) and found.difficult.tolist() == [1]


def test_without_difficult_nothing_is_difficult(tmp_path):
    assert read_labels(write(tmp_path, SHIP.removesuffix(" 1"))).difficult.tolist() == [0]


@pytest.mark.parametrize("text", ["", "imagesource:GoogleEarth\ngsd:0.2\n"])
def test_an_image_without_objects(tmp_path, text):
    assert read_labels(write(tmp_path, text)).polygons.shape == (0, 8)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 2 3 4 5 6 7 ship 0", "7 numbers before 'ship'; expected x1 y1 x2 y2 x3 y3 x4 y4 class difficult; correct or"),
        ("1 2 3 4 5 6 7 8 9 ship 0", "9 numbers before 'ship'"),
        ("1 2 3 4 5 6 7 8", "8 numbers and no class"),
        ("1 2 3 4 5 6 7 8 baseball diamond 0", "'baseball diamond 0' after the corners; .*write spaces in names of classes as"),
        ("1 2 3 4 5 6 7 8 ship x", "difficult is 'x'; expected 0, 1"),
        ("1 2 3 four 5 6 7 8 ship 0", "3 numbers before 'four'"),
        ("1 2 3 nan 5 6 7 8 ship 0", "a number that is not finite"),
        ("gsd:0.2", "0 numbers before 'gsd:0.2'"),  # a header after the first object
    ],
)
def test_a_line_that_is_none_is_named_with_the_fix(tmp_path, line, message):
    path = write(tmp_path, f"imagesource:x\n{SHIP}\n{line}\n")
    with pytest.raises(LabelError, match=rf"P1\.txt, line 3: .*{message.replace('(', '.')}"):
        read_labels(path)


def test_a_file_that_is_no_text_or_not_there(tmp_path):
    with pytest.raises(LabelError, match="is no text in UTF-8"):
        read_labels(write(tmp_path, b"\xff\xfe1\x00"))
    with pytest.raises(MissingFile, match=r"none\.txt is not there"):
        read_labels(tmp_path / "none.txt")


def test_labels_that_are_written_are_read_again(tmp_path):
    polygons = np.random.default_rng(0).uniform(-5, 2000, (20, 8)).round(3)
    difficult = np.arange(20, dtype=np.uint8) % 3
    write_labels(tmp_path / "new" / "a.txt", polygons, ["large vehicle"] * 20, difficult, facts={"gsd": "0.5"})
    found = read_labels(tmp_path / "new" / "a.txt")
    np.testing.assert_array_equal(found.polygons, polygons)
    assert found.difficult.tolist() == difficult.tolist() and set(found.names) == {"large-vehicle"}
    assert found.facts == {"gsd": "0.5"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def detections(image, scores, labels, seed=0):
    polygons = np.random.default_rng(seed).uniform(0, 900, (len(scores), 8)).round(2)
    return Detections(image=image, polygons=polygons, scores=np.array(scores), labels=np.array(labels))


def test_results_are_written_a_file_for_each_class_and_read_again(tmp_path):
    first, second = detections("x/P0003.png", [0.5, 0.9], [0, 1]), detections("P0004", [0.7], [1], seed=1)
    paths = write_results(tmp_path / "out", [first, second], classes=CLASSES)
    assert [path.name for path in paths] == ["Task1_ship.txt", "Task1_large-vehicle.txt"]
    lines = paths[1].read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["P0003", "0.9"], ["P0004", "0.7"]]  # best first
    again = read_results(tmp_path / "out", classes=CLASSES)
    assert [(one.image, one.scores.tolist(), one.labels.tolist()) for one in again] == [
        ("P0003", [0.5, 0.9], [0, 1]),
        ("P0004", [0.7], [1]),
    ]
    np.testing.assert_array_equal(again[0].polygons, first.polygons)


def test_a_class_that_was_not_found_has_an_empty_file(tmp_path):
    write_results(tmp_path, [detections("P1", [0.5], [0])], classes=CLASSES)
    assert (tmp_path / "Task1_large-vehicle.txt").read_text() == ""
    assert [one.image for one in read_results(tmp_path, classes=CLASSES)] == ["P1"]


def test_folders_of_results_that_do_not_fit_the_classes(tmp_path):
    with pytest.raises(MissingFile, match=r"none is not there; expected a folder of Task1_<class>\.txt"):
        read_results(tmp_path / "none", classes=CLASSES)
    write_results(tmp_path, [], classes=Classes.named(["ship"]))
    with pytest.raises(MissingFile, match=r"lacks Task1_large-vehicle\.txt"):
        read_results(tmp_path, classes=CLASSES)
    with pytest.raises(LabelError, match=r"has Task1_ship\.txt, of no class of shop \(nearest: Task1_shop\.txt\)"):
        (tmp_path / "Task1_shop.txt").write_text("")
        read_results(tmp_path, classes=Classes.named(["shop"]))


@pytest.mark.parametrize(
    ("line", "message"),
    [("P1 0.5 1 2 3 4 5 6 7", "9 fields.*expected image score x1"), ("P1 high 1 2 3 4 5 6 7 8", "'high' is no number")],
)
def test_a_line_of_results_that_is_none(tmp_path, line, message):
    (tmp_path / "Task1_ship.txt").write_text(f"P1 0.5 1 2 3 4 5 6 7 8\n{line}\n")
    with pytest.raises(LabelError, match=rf"Task1_ship\.txt, line 2: .*{message}"):
        read_results(tmp_path, classes=Classes.named(["ship"]))


def test_a_class_that_cannot_be_a_file_name(tmp_path):
    with pytest.raises(LabelError, match="'a/b' cannot be part of a file name"):
        write_results(tmp_path, [], classes=Classes.named(["a/b"]))
    with pytest.raises(LabelError, match="the classes small ship, small-ship would share one file"):
        write_results(tmp_path, [], classes=Classes.named(["small ship", "small-ship"]))


def test_a_class_that_is_a_number_is_read_as_it_is_written(tmp_path):
    square = np.array([[10.0, 10, 20, 10, 20, 20, 10, 20]])
    write_labels(tmp_path / "a.txt", square, ["100000013"], np.ones(1, np.uint8))
    found = read_labels(tmp_path / "a.txt")
    assert found.names == ("100000013",) and found.difficult.tolist() == [1] and found.polygons.tolist() == square.tolist()


def test_shares_of_the_sides_are_no_px(tmp_path):
    (tmp_path / "a.txt").write_text("0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2 ship 0\n")
    with pytest.raises(LabelError, match=r"a\.txt: all corners lie between 0 and 1, the first at 0\.1 0\.1.*YOLO-OBB"):
        read_labels(tmp_path / "a.txt")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFailed, match="could not be written"):
        write_results(tmp_path / "file", [], classes=CLASSES)


def test_each_version_has_the_classes_of_the_one_before_and_more():
    assert [len(names) for names in (CLASSES_10, CLASSES_15, CLASSES_20)] == [15, 16, 18]
    assert CLASSES_20[15:] == ("container-crane", "airport", "helipad")

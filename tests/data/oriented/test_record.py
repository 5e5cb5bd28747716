import logging

import numpy as np
import pytest
import shapely

from terralean.data.oriented.record import (
    Detections,
    Record,
    checked,
    crossing_itself,
    in_order,
    labelled,
    no_detections,
    side_by_side,
    to_record,
)
from terralean.errors import DatasetError, LabelError
from terralean.spec import Classes

SQUARE = [10.0, 10, 20, 10, 20, 20, 10, 20]
BOW_TIE = [10.0, 10, 20, 20, 20, 10, 10, 20]


def objects(*polygons, names=None):
    names = names or ["ship"] * len(polygons)
    return labelled("a.txt", [(f"line {i}", p, n, 0) for i, (p, n) in enumerate(zip(polygons, names, strict=True), 3)])


def test_a_name_that_is_no_class_names_file_line_and_the_nearest():
    classes = Classes.named(["ship", "large-vehicle"])
    with pytest.raises(
        LabelError, match=r"a\.txt, line 4: the class 'large-vehicel' is none of ship, large-vehicle; nearest: large"
    ):
        to_record(objects(SQUARE, SQUARE, names=["ship", "large-vehicel"]), image="a.png", classes=classes)
    record = to_record(objects(SQUARE, SQUARE, names=["large-vehicle", "ship"]), image="a.png", classes=classes)
    assert record.labels.tolist() == [1, 0] and record.image == "a.png"


def test_some_of_the_objects():
    record = to_record(objects(SQUARE, BOW_TIE), image="a.png", classes=Classes.named(["ship"]))
    assert record.of(np.array([False, True])).polygons.tolist() == [BOW_TIE]
    assert len(record.of(np.array([1, 1, 0]))) == 3


def test_which_polygons_cross_themselves_as_shapely_has_it():
    polygons = np.random.default_rng(0).uniform(0, 20, (2000, 8))
    simple = shapely.is_simple(shapely.linearrings(polygons.reshape(-1, 4, 2)))
    assert 0.2 < simple.mean() < 0.9
    np.testing.assert_array_equal(crossing_itself(polygons), ~simple)


def test_corners_in_order_do_not_cross_and_are_the_same_corners():
    polygons = np.random.default_rng(1).uniform(0, 20, (500, 8))
    ordered = in_order(polygons)
    assert not crossing_itself(ordered).any()
    np.testing.assert_array_equal(np.sort(ordered.reshape(-1, 4, 2), axis=1), np.sort(polygons.reshape(-1, 4, 2), axis=1))


def test_a_polygon_that_crosses_itself_is_put_in_order_with_a_warning_or_refused(caplog):
    with caplog.at_level(logging.WARNING):
        mended = checked(objects(SQUARE, BOW_TIE), width=60, height=40, crossing="order")
    assert "a.txt, line 4: the ship at (10, 10) (20, 20) (20, 10) (10, 20) crosses itself" in caplog.text
    assert mended.polygons[0].tolist() == SQUARE
    assert shapely.Polygon(mended.polygons[1].reshape(4, 2)).area == 100
    with pytest.raises(LabelError, match=r"a\.txt, line 4: .* crosses itself; put its corners in order"):
        checked(objects(SQUARE, BOW_TIE), width=60, height=40, crossing="refuse")


def test_an_object_may_reach_over_the_edge_but_not_lie_beyond(caplog):
    over = [-5.0, -5, 5, -5, 5, 5, -5, 5]
    beyond = [61.0, 10, 70, 10, 70, 20, 61, 20]
    assert checked(objects(over), width=60, height=40, crossing="refuse").polygons.tolist() == [over]
    with pytest.raises(LabelError, match=r"a\.txt, line 4: the ship at \(61, 10\) .* lies outside its image of 60 x 40 px"):
        checked(objects(over, beyond), width=60, height=40, crossing="order")


def test_a_corner_that_is_no_number_is_refused():
    with pytest.raises(LabelError, match=r"a\.txt, line 3: a corner is"):
        objects([float("nan"), *SQUARE[1:]])


def test_an_image_without_objects():
    none = checked(objects(), width=60, height=40, crossing="order")
    assert len(to_record(none, image="a.png", classes=Classes.named(["ship"]))) == 0


def found(image, count=1):
    return Detections(
        image=image, polygons=np.tile(SQUARE, (count, 1)), scores=np.full(count, 0.5), labels=np.zeros(count, dtype=np.int64)
    )


def records(*images):
    return [to_record(objects(), image=image, classes=Classes.named(["ship"])) for image in images]


def test_detections_are_put_beside_their_images_by_name():
    beside = side_by_side([found("P2", 3), found("somewhere/P1.tif", 2)], records("x/P1.png", "x/P2.png", "x/P3.png"))
    assert [(one.image, len(one)) for one in beside] == [("x/P1.png", 2), ("x/P2.png", 3), ("x/P3.png", 0)]
    assert len(no_detections("a")) == 0


def test_detections_of_no_image_or_twice_of_one_are_refused():
    with pytest.raises(DatasetError, match=r"'P11', which is none of the 2 images \(nearest: P1\)"):
        side_by_side([found("P11")], records("P1.png", "P2.png"))
    with pytest.raises(DatasetError, match="two sets of detections in 'P1'"):
        side_by_side([found("P1"), found("P1")], records("P1.png"))
    with pytest.raises(DatasetError, match="several images are called P1"):
        side_by_side([], records("a/P1.png", "b/P1.png"))


def test_records_of_other_lengths_are_refused():
    with pytest.raises(AssertionError):
        Record(image="a", polygons=np.zeros((2, 8)), labels=np.zeros(1, np.int64), difficult=np.zeros(1, np.uint8))

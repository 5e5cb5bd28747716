import math

import numpy as np
import pytest
import shapely

from terralean.data.oriented.record import Detections, Record
from terralean.errors import DatasetError
from terralean.tasks.detection_scores import IOU_THRESHOLDS, average_precision, judge, measures, outcomes, score

NAN = float("nan")


def square(x, y, side=10.0):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def image(objects, found, *, name="a", labels=None, kinds=None):
    """Objects as (polygon, difficult), detections as (polygon, score); classes are 0 where not given."""
    polygons, difficult = ([one[i] for one in objects] for i in (0, 1))
    theirs, scores = ([one[i] for one in found] for i in (0, 1))
    truth = Record(
        image=name,
        polygons=np.array(polygons, dtype=np.float64).reshape(len(objects), 8),
        labels=np.array(labels or [0] * len(objects), dtype=np.int64),
        difficult=np.array(difficult, dtype=np.uint8),
    )
    answer = Detections(
        image=name,
        polygons=np.array(theirs, dtype=np.float64).reshape(len(found), 8),
        scores=np.array(scores, dtype=np.float64),
        labels=np.array(kinds or [0] * len(found), dtype=np.int64),
    )
    return answer, truth


def scores_of(*images, classes=1, **options):
    found, truth = zip(*images, strict=True)
    return score(outcomes(found, truth, classes=classes, **options))


# Worked by hand.


def test_right_wrong_doubled_and_difficult():
    """Three objects and a difficult one. Detections by falling score:

    | score | is                      | right | counted | precision | recall |
    | 0.9   | object 1                | 1     | 1       | 1         | 1/3    |
    | 0.8   | nothing                 | 1     | 2       | 1/2       | 1/3    |
    | 0.7   | object 2                | 2     | 3       | 2/3       | 2/3    |
    | 0.6   | object 2 again          | 2     | 4       | 1/2       | 2/3    |
    | 0.5   | the difficult one       | 2     | 4       | 1/2       | 2/3    |
    | 0.4   | object 3                | 3     | 5       | 3/5       | 1      |

    Precision made falling: 1 up to recall 1/3, 2/3 up to 2/3, 3/5 up to 1.
    Area: (1 + 2/3 + 3/5) / 3. Eleven points: recall 0 to 0.3 has 1 (four), 0.4 to 0.6 has 2/3 (three), 0.7 to 1 has 3/5 (four).
    """
    objects = [(square(0, 0), 0), (square(50, 0), 0), (square(100, 0), 0), (square(150, 0), 1)]
    found = [
        (square(100, 0), 0.4),
        (square(0, 0), 0.9),
        (square(300, 0), 0.8),
        (square(50, 1), 0.7),
        (square(51, 0), 0.6),
        (square(150, 0), 0.5),
    ]
    scores = scores_of(image(objects, found))
    assert scores.ap50_area == (pytest.approx((1 + 2 / 3 + 3 / 5) / 3),)
    assert scores.ap50_voc07 == (pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11),)
    assert (scores.support, scores.difficult, scores.found, scores.recall50) == ((3,), (1,), (6,), (1.0,))


def test_each_detection_and_object_of_an_image_is_judged():
    found, truth = image(
        [(square(0, 0), 0), (square(50, 0), 0), (square(100, 0), 0), (square(150, 0), 1)],
        [(square(1, 0), 0.5), (square(0, 0), 0.9), (square(100, 0), 0.8), (square(150, 1), 0.7), (square(300, 0), 0.6)],
        labels=[0, 0, 1, 0],
        kinds=[0, 0, 0, 0, 1],
    )
    judged = judge(found, truth, iou=0.5)
    assert judged.right.tolist() == [False, True, False, False, False]  # second best; right; another class; ..; nowhere
    assert judged.ignored.tolist() == [False, False, False, True, False]
    assert judged.missed.tolist() == [False, True, True, False]


def test_two_classes_and_an_image_without_objects():
    """Class 0: two objects; found: one at 0.9 (right), one at 0.3 in the empty image (wrong). Recall ends at 1/2, precision 1.

    Area: 1/2. Eleven points: recall 0 to 0.5 has 1 (six points), beyond has 0: 6/11.
    Class 1: one object, found at 0.5 (right) after a wrong one at 0.8: precision 1/2 at recall 1. Area 1/2, eleven points 1/2.
    Class 2 has no object: its one detection is wrong in no class that is scored.
    """
    first = image(
        [(square(0, 0), 0), (square(50, 0), 0), (square(100, 0), 0)],
        [(square(0, 0), 0.9), (square(100, 0), 0.5), (square(0, 0), 0.8)],
        labels=[0, 0, 1],
        kinds=[0, 1, 1],
    )
    empty = image([], [(square(5, 5), 0.3), (square(9, 9), 0.99)], name="b", kinds=[0, 2])
    silent = image([], [], name="c")
    scores = scores_of(first, empty, silent, classes=3)
    assert scores.ap50_area == (0.5, 0.5, pytest.approx(NAN, nan_ok=True))
    assert scores.ap50_voc07 == (pytest.approx(6 / 11), pytest.approx(0.5), pytest.approx(NAN, nan_ok=True))
    assert scores.map50_area == 0.5 and scores.map50_voc07 == pytest.approx((6 / 11 + 0.5) / 2)
    assert scores.recall50 == (0.5, 1.0, pytest.approx(NAN, nan_ok=True))


def test_equal_scores_count_together_whatever_their_order():
    """Two objects; at 0.5 one right and one wrong together, at 0.4 one right: precision 1/2 at recall 1/2, 2/3 at 1.

    Made falling it is 2/3 throughout, so both rules give 2/3. Counting one by one would give 1 or 1/2 first.
    """
    objects = [(square(0, 0), 0), (square(50, 0), 0)]
    found = [(square(0, 0), 0.5), (square(300, 0), 0.5), (square(50, 0), 0.4)]
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        scores = scores_of(image(objects, [found[i] for i in order]))
        assert scores.ap50_area == (pytest.approx(2 / 3),) and scores.ap50_voc07 == (pytest.approx(2 / 3),)


def test_two_detections_of_one_object_with_equal_scores_are_one_right_and_one_wrong():
    scores = scores_of(image([(square(0, 0), 0)], [(square(0, 0), 0.5), (square(0, 1), 0.5)]))
    assert scores.ap50_area == (0.5,) and scores.ap50_voc07 == (0.5,)


def test_recall_of_exactly_three_tenths_reaches_three_tenths():
    """Ten objects, three found with precision 1, then one after seven wrong ones: precision 4/11 at recall 0.4.

    Eleven points: recall 0, 0.1, 0.2 and 0.3 have 1, 0.4 has 4/11, the others 0.
    """
    objects = [(square(20 * i, 0), 0) for i in range(10)]
    found = [(square(20 * i, 0), 0.9 - i / 100) for i in range(3)]
    found += [(square(20 * i, 500), 0.5 - i / 100) for i in range(7)] + [(square(180, 0), 0.1)]
    assert scores_of(image(objects, found)).ap50_voc07 == (pytest.approx((4 + 4 / 11) / 11),)


def test_an_iou_of_just_the_threshold_is_no_hit():
    """10 x 10 against 10 x 5 within it: an IoU of 1/2 is not above 1/2; 10 x 5.1 is."""
    for height, expected in ((5.0, 0.0), (5.1, 1.0)):
        half = [0, 0, 10, 0, 10, height, 0, height]
        assert scores_of(image([(square(0, 0), 0)], [(half, 0.9)])).ap50_area == (expected,)


def test_each_detection_is_compared_with_the_object_it_overlaps_most_also_if_that_is_taken_or_difficult():
    """Two objects overlap; both detections are nearer to the first, so the second is wrong, though it could be right."""
    objects = [(square(0, 0), 0), (square(2, 0), 0)]
    both_near_first = [(square(0, 0), 0.9), (square(0.9, 0), 0.8)]  # IoU of the latter: 9.1 / 10.9 and 8.9 / 11.1
    assert scores_of(image(objects, both_near_first)).recall50 == (0.5,)
    difficult_first = [(square(0, 0), 1), (square(2, 0), 0)]
    scores = scores_of(image(difficult_first, [(square(0.9, 0), 0.8)]))
    assert scores.recall50 == (0.0,) and scores.ap50_area == (0.0,)


def test_the_mean_over_thresholds():
    """One object found with an IoU of 9 / 11 = 0.818: right at 0.5 to 0.8 (seven), wrong at 0.85, 0.9 and 0.95."""
    scores = scores_of(image([(square(0, 0), 0)], [(square(1, 0), 0.9)]))
    assert scores.ap50_area == (1.0,)
    assert scores.ap50_95_area == (pytest.approx(0.7),) and scores.map50_95_voc07 == pytest.approx(0.7)


def test_quadrilaterals_are_compared_as_they_are_not_as_boxes():
    """A right triangle's area is half of its box: against the box its IoU is 1/2, against itself 1."""
    triangle = [0.0, 0, 10, 0, 0, 10, 0, 5]
    assert scores_of(image([(triangle, 0)], [(square(0, 0), 0.9)])).ap50_area == (0.0,)
    assert scores_of(image([(triangle, 0)], [(triangle, 0.9)])).ap50_area == (1.0,)


def test_nothing_found_and_nothing_there():
    scores = scores_of(image([(square(0, 0), 0)], []), classes=2)
    assert scores.ap50_area[0] == 0 and scores.ap50_voc07[0] == 0 and scores.map50_area == 0
    assert math.isnan(scores.ap50_area[1])
    assert math.isnan(scores_of(image([], [(square(0, 0), 0.9)])).map50_voc07)
    assert math.isnan(scores_of(image([(square(0, 0), 1)], [])).map50_voc07)


# Against the rule as it reads.


def one_by_one(images, *, threshold, label):
    """DOTA's rule, detection by detection, with shapely's polygons: AP by (voc07, area)."""
    queue = []
    objects = {}
    for number, (found, truth) in enumerate(images):
        mine = truth.labels == label
        objects[number] = [
            [shapely.Polygon(p.reshape(4, 2)), bool(d), False]
            for p, d in zip(truth.polygons[mine], truth.difficult[mine], strict=True)
        ]
        for polygon, value, kind in zip(found.polygons, found.scores, found.labels, strict=True):
            if kind == label:
                queue.append((-value, number, shapely.Polygon(polygon.reshape(4, 2))))
    count = sum(not one[1] for some in objects.values() for one in some)
    right, curve, answered = 0, [], 0
    for _, number, polygon in sorted(queue, key=lambda one: one[0]):
        ious = [one[0].intersection(polygon).area / one[0].union(polygon).area for one in objects[number]]
        best = max(range(len(ious)), key=ious.__getitem__, default=None)
        if best is not None and ious[best] > threshold:
            one = objects[number][best]
            if one[1]:
                continue
            right += not one[2]
            one[2] = True
        answered += 1
        curve.append((right / answered, right / count))
    eleven = [max((p for p, r in curve if r >= t / 10 - 1e-12), default=0.0) for t in range(11)]
    area, before = 0.0, 0.0
    for place, (_, recall) in enumerate(curve):
        area += (recall - before) * max(p for p, _ in curve[place:])
        before = recall
    return sum(eleven) / 11, area


@pytest.fixture(scope="module")
def crowd():
    """Twelve images of up to twelve objects of two classes, some difficult, found with noise, doubles and inventions."""
    rng = np.random.default_rng(0)
    images = []
    for number in range(12):
        count = int(rng.integers(0, 13))
        objects = [
            ([*(np.array(square(*rng.uniform(0, 60, 2))) + rng.uniform(-2, 2, 8))], int(rng.random() < 0.2))
            for _ in range(count)
        ]
        labels = rng.integers(0, 2, count).tolist()
        found, kinds = [], []
        for (polygon, _), label in zip(objects, labels, strict=True):
            for _ in range(int(rng.integers(0, 3))):
                found.append(((np.array(polygon) + np.tile(rng.normal(0, 1.5, 2), 4)).tolist(), rng.random()))
                kinds.append(label)
        for _ in range(3):
            found.append((square(*rng.uniform(0, 60, 2)), rng.random()))
            kinds.append(int(rng.integers(0, 2)))
        images.append(image(objects, found, name=str(number), labels=labels, kinds=kinds))
    return images


def test_random_crowds_score_as_the_rule_reads(crowd):
    scores = scores_of(*crowd, classes=2)
    ious = {t: [one_by_one(crowd, threshold=t, label=label) for label in range(2)] for t in IOU_THRESHOLDS}
    assert 0.1 < ious[0.5][0][1] < 0.9
    for label in range(2):
        assert scores.ap50_voc07[label] == pytest.approx(ious[0.5][label][0])
        assert scores.ap50_area[label] == pytest.approx(ious[0.5][label][1])
        assert scores.ap50_95_area[label] == pytest.approx(np.mean([ious[t][label][1] for t in IOU_THRESHOLDS]))
    assert scores.map50_voc07 == pytest.approx(np.mean([ious[0.5][label][0] for label in range(2)]))


def test_the_order_of_images_and_detections_does_not_matter(crowd):
    assert scores_of(*crowd, classes=2) == scores_of(*reversed(crowd), classes=2)


def test_a_unit_that_counts_twice_is_an_image_that_is_there_twice(crowd):
    found, truth = zip(*crowd, strict=True)
    times = np.random.default_rng(1).integers(0, 3, (5, len(crowd)))
    drawn = measures(outcomes(found, truth, classes=2), times.astype(np.float64))
    for row, counts in enumerate(times):
        again = [one for one, count in zip(crowd, counts, strict=True) for _ in range(count)]
        expected = scores_of(*again, classes=2)
        assert drawn["map50_voc07"][row] == pytest.approx(expected.map50_voc07)
        np.testing.assert_allclose(drawn["ap50_95_area"][row], expected.ap50_95_area)
        np.testing.assert_allclose(drawn["recall50"][row], expected.recall50)


# Units.


def test_units_are_images_or_groups_or_blocks():
    near = image([(square(0, 0), 0), (square(95, 0), 0)], [(square(98, 0), 0.9), (square(0, 0), 0.8), (square(99.5, 60), 0.7)])
    other = image([(square(0, 0), 0)], [(square(0, 0), 0.6)], name="b")
    found, truth = zip(near, other, strict=True)
    of_images = outcomes(found, truth, classes=1)
    assert of_images.unit.tolist() == [0, 0, 0, 1] and of_images.objects.tolist() == [[2], [1]]
    together = outcomes(found, truth, classes=1, groups=["north", "north"])
    assert together.unit.tolist() == [0, 0, 0, 0] and together.objects.tolist() == [[3]]
    # Blocks of 100 px: the object at 95 to 105 has its middle at 100, in the second block, and so has its detection; the one
    # at 99.5 to 109.5 that hits nothing has its own, also there.
    blocks = outcomes(found, truth, classes=1, block_px=100.0)
    assert blocks.unit.tolist() == [1, 0, 1, 2] and blocks.objects.tolist() == [[1], [1], [1]]
    # Of 101 px: the object is in the first, and takes its detection along, whose own middle is at 103.
    moved = outcomes(found, truth, classes=1, block_px=101.0)
    assert moved.unit.tolist() == [0, 0, 1, 2] and moved.objects.tolist() == [[2], [0], [1]]
    assert score(moved) == score(of_images)


def test_images_in_another_order_are_refused():
    (a, first), (b, second) = image([], [], name="a"), image([], [], name="b")
    with pytest.raises(DatasetError, match="detections of b stand beside objects of a"):
        outcomes([b, a], [first, second], classes=1)


def test_average_precision_without_points_or_objects():
    none = np.zeros((2, 0))
    assert average_precision(none, none, np.array([3.0, 0.0]))[:, 0].tolist() == [0, 0]
    assert np.isnan(average_precision(none, none, np.array([3.0, 0.0]))[:, 1]).all()

import json
import math

import numpy as np
import pytest
import shapely

from terralean.data.oriented.coco import read_coco
from terralean.data.oriented.corners import four_corners
from terralean.data.oriented.xml import read_hrsc, read_voc
from terralean.data.oriented.yolo import read_names, read_yolo
from terralean.errors import LabelError, MissingFile

CORNERS = ["x_left_top", "y_left_top", "x_right_top", "y_right_top", "x_right_bottom", "y_right_bottom", "x_left_bottom"]
CORNERS += ["y_left_bottom"]
WORKED = [7.036, 7.134, 13.964, 11.134, 12.964, 12.866, 6.036, 8.866]  # of 10, 10, 8, 2 at 30 degrees


def save(tmp_path, text, name="a.xml"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def voc(body):
    return f"<annotation><size><width>60</width></size>{body}</annotation>"


# DIOR-R and roLabelImg


def test_dior_has_four_corners(tmp_path):
    box = "".join(f"<{name}>{value}</{name}>" for name, value in zip(CORNERS, range(1, 9), strict=True))
    one = f"<object><name>Expressway-Service-area</name><difficult>1</difficult><robndbox>{box}</robndbox></object>"
    two = f"<object><name>golffield</name><angle>3</angle><robndbox>{box}</robndbox></object>"
    found = read_voc(save(tmp_path, voc(one + two)))
    assert found.names == ("Expressway-Service-area", "golffield") and found.difficult.tolist() == [1, 0]
    assert found.polygons.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]] * 2 and found.places == ("object 1", "object 2")


def test_rolabelimg_has_centre_size_and_angle(tmp_path):
    box = f"<cx>10</cx><cy>10</cy><w>8</w><h>2</h><angle>{math.radians(30)}</angle>"
    found = read_voc(save(tmp_path, voc(f"<object><name>ship</name><robndbox>{box}</robndbox></object>")))
    np.testing.assert_allclose(found.polygons, [WORKED], atol=5e-4)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<object><name>ship</name><bndbox/></object>", r"object 1 has no robndbox \(it has name, bndbox\)"),
        (
            "<object><robndbox><x_left_top>1</x_left_top></robndbox></object>",
            r"object 1 has no y_left_top \(it has x_left_top\)",
        ),
        ("<object><robndbox><cx>one</cx></robndbox></object>", "object 1: cx is 'one'; expected a number"),
        ("<object>", "is no complete XML file"),
        (
            "<object><name>ship</name><robndbox><cx>9</cx><cy>9</cy><w>8</w><h>2</h><angle>45</angle></robndbox></object>",
            "object 1: its angle is 45; expected radians",
        ),
    ],
)
def test_xml_that_is_wrong_is_named(tmp_path, body, message):
    with pytest.raises(LabelError, match=rf"a\.xml.*{message}"):
        read_voc(save(tmp_path, voc(body)))


def test_xml_that_is_not_there(tmp_path):
    with pytest.raises(MissingFile, match=r"none\.xml is not there"):
        read_voc(tmp_path / "none.xml")


def test_xml_of_another_kind_is_refused(tmp_path):
    with pytest.raises(LabelError, match=r"a\.xml is a file of <annotations>; expected <annotation>"):
        read_voc(save(tmp_path, "<annotations><image/></annotations>"))
    with pytest.raises(LabelError, match=r"a\.xml is a file of <annotation>; expected <HRSC_Image>"):
        read_hrsc(save(tmp_path, voc("")), classes="ship")


def test_xml_says_the_size_of_its_image(tmp_path):
    sizes = [
        ("<annotation><size><width>60</width><height>40</height></size></annotation>", (60, 40)),
        ("<annotation><size><width>0</width><height>0</height></size></annotation>", None),
        ("<annotation/>", None),
    ]
    assert [read_voc(save(tmp_path, text)).size for text, _ in sizes] == [size for _, size in sizes]
    text = "<HRSC_Image><Img_SizeWidth>1166</Img_SizeWidth><Img_SizeHeight>753</Img_SizeHeight></HRSC_Image>"
    assert read_hrsc(save(tmp_path, text), classes="ship").size == (1166, 753)


# HRSC2016


def hrsc(*ids):
    box = (
        f"<mbox_cx>10</mbox_cx><mbox_cy>10</mbox_cy><mbox_w>8</mbox_w><mbox_h>2</mbox_h><mbox_ang>{math.radians(30)}</mbox_ang>"
    )
    objects = "".join(f"<HRSC_Object><Class_ID>{i}</Class_ID><difficult>0</difficult>{box}</HRSC_Object>" for i in ids)
    return f"<HRSC_Image><Img_ID>1</Img_ID><HRSC_Objects>{objects}</HRSC_Objects></HRSC_Image>"


def test_hrsc_has_ships_or_their_kinds(tmp_path):
    path = save(tmp_path, hrsc(100000013, 100000005))
    found = read_hrsc(path, classes="ship")
    np.testing.assert_allclose(found.polygons, [WORKED, WORKED], atol=5e-4)
    assert found.names == ("ship", "ship")
    assert read_hrsc(path, classes="id").names == ("100000013", "100000005")
    assert read_hrsc(save(tmp_path, hrsc()), classes="ship").names == ()


# COCO


def coco(tmp_path, annotations, **changes):
    document = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}],
        "categories": [{"id": 3, "name": "ship"}, {"id": 1, "name": "plane"}],
        "annotations": [{"id": 50 + i, "image_id": 7, "category_id": 3} | one for i, one in enumerate(annotations)],
    }
    return save(tmp_path, json.dumps(document | changes), "a.json")


def test_coco_polygons_become_four_corners(tmp_path):
    quadrilateral = [1, 2, 9, 3, 8, 8, 2, 7]
    hexagon = [0, 0, 4, 0, 6, 1, 8, 0, 8, 4, 0, 4]  # an upright rectangle with a dent
    path = coco(
        tmp_path,
        [
            {"segmentation": [quadrilateral]},
            {"segmentation": [hexagon], "category_id": 1},
            {"segmentation": [[0, 0, 2, 0, 2, 2], [6, 6, 8, 6, 8, 8, 7, 9]]},
            {"bbox": [1, 2, 3, 4], "iscrowd": 1, "image_id": 8},
            {"segmentation": quadrilateral},
            {"segmentation": [[*quadrilateral, 1, 2]]},  # closed
        ],
    )
    found = read_coco(path)
    assert found.names == ("plane", "ship")
    first, second = found.images["a.png"], found.images["b.png"]
    assert first.polygons[[0, 3, 4]].tolist() == [quadrilateral] * 3
    assert sorted(first.polygons[1].reshape(4, 2).tolist()) == [[0, 0], [0, 4], [8, 0], [8, 4]]
    cloud = shapely.multipoints([[0, 0], [2, 0], [2, 2], [6, 6], [8, 6], [8, 8], [7, 9]])
    smallest = shapely.minimum_rotated_rectangle(cloud)
    assert shapely.Polygon(first.polygons[2].reshape(4, 2)).area == pytest.approx(smallest.area)
    assert first.names == ("ship", "plane", "ship", "ship", "ship")
    assert second.polygons.tolist() == [[1, 2, 4, 2, 4, 6, 1, 6]] and second.difficult.tolist() == [1]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"segmentation": {"counts": "x", "size": [4, 4]}}, "annotation 50 is a run-length mask; expected polygons"),
        ({"segmentation": [[1, 2, 3, 4]]}, "annotation 50: a polygon has 4 numbers"),
        ({"bbox": [1, 2, 3]}, "annotation 50 has neither a polygon nor a bbox"),
        ({}, "annotation 50 has neither a polygon nor a bbox"),
        ({"bbox": [1, 2, 3, 4], "category_id": 9}, "annotation 50: its category_id 9 is not in the file"),
        ({"bbox": [1, 2, 3, 4], "image_id": 9}, "annotation 50: its image_id 9 is not in the file"),
        ({"bbox": [1, 2, 3, 4], "image_id": [7]}, r"annotation 50: its image_id \[7\] is not in the file"),
        ({"segmentation": [[1, None, 3, 4, 5, 6]]}, "annotation 50: a corner of its polygon is no number"),
    ],
)
def test_annotations_that_are_wrong_are_named(tmp_path, annotation, message):
    with pytest.raises(LabelError, match=rf"a\.json, {message}"):
        read_coco(coco(tmp_path, [annotation]))


def test_json_that_is_not_coco(tmp_path):
    with pytest.raises(LabelError, match=r"is not in COCO's form: it holds type; expected lists images, annotations"):
        read_coco(save(tmp_path, '{"type": "FeatureCollection"}', "a.json"))
    with pytest.raises(LabelError, match="is no complete JSON file"):
        read_coco(save(tmp_path, '{"images": [', "a.json"))
    with pytest.raises(LabelError, match="entry 0 of images has no file_name"):
        read_coco(coco(tmp_path, [], images=[{"id": 1}]))


@pytest.mark.parametrize(
    ("part", "entries", "message"),
    [
        ("images", [{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "b.png"}], "the id 7 of images is twice"),
        ("images", [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "a.png"}], r"several images called a\.png"),
        ("categories", [{"id": 1, "name": "ship"}, {"id": 1, "name": "plane"}], "the id 1 of categories is twice"),
        ("categories", [{"id": 1, "name": None}], "the name of entry 1 of categories is None; expected a text"),
        ("images", [{"id": [7], "file_name": "a.png"}], r"the id \[7\] of images is no number"),
    ],
)
def test_coco_entries_that_hide_each_other_are_named(tmp_path, part, entries, message):
    with pytest.raises(LabelError, match=rf"a\.json.*{message}"):
        read_coco(coco(tmp_path, [], **{part: entries}))


def test_coco_says_the_size_of_an_image_and_takes_ids_of_any_kind(tmp_path):
    images = [{"id": 7, "file_name": "a.png", "width": 60, "height": 40}, {"id": "x", "file_name": "b.png", "width": 0}]
    found = read_coco(coco(tmp_path, [], images=images, categories=[{"id": "b", "name": "ship"}, {"id": 2, "name": "car"}]))
    assert [one.size for one in found.images.values()] == [(60, 40), None] and found.names == ("car", "ship")


def test_four_corners_are_kept_and_others_boxed():
    assert four_corners(np.array([[0.0, 0], [3, 1], [2, 4], [0, 3]])) == [0, 0, 3, 1, 2, 4, 0, 3]
    line = four_corners(np.array([[0.0, 0], [2, 2], [4, 4]]))
    assert sorted({tuple(point) for point in np.round(np.reshape(line, (4, 2)), 9)}) == [(0, 0), (4, 4)]
    assert four_corners(np.array([[2.0, 3]] * 3)) == [2, 3] * 4


# YOLO


def test_yolo_shares_become_px(tmp_path):
    path = save(tmp_path, "1 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4\n\n0 -0.1 0 0.5 0 0.5 1.1 -0.1 1.1\n", "a.txt")
    found = read_yolo(path, width=100, height=50, names=("plane", "ship"))
    np.testing.assert_allclose(found.polygons, [[10, 10, 30, 10, 30, 20, 10, 20], [-10, 0, 50, 0, 50, 55, -10, 55]])
    assert found.names == ("ship", "plane") and found.places == ("line 1", "line 3")


def test_an_image_without_a_yolo_file_has_no_objects(tmp_path):
    assert read_yolo(tmp_path / "none.txt", width=100, height=50, names=("plane",)).names == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1 0.1", "5 fields.*give labels of oriented boxes"),
        ("2 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4", r"class 2; the dataset has 0 to 1 \(plane, ship\)"),
        ("0 10 20 30 20 30 40 10 40", "expected shares 0 to 1.*not pixels"),
        ("ship 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4", "has what is no number"),
    ],
)
def test_a_yolo_line_that_is_none(tmp_path, line, message):
    with pytest.raises(LabelError, match=rf"a\.txt, line 1: .*{message}"):
        read_yolo(save(tmp_path, line, "a.txt"), width=100, height=50, names=("plane", "ship"))


def test_a_yolo_file_that_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe0\x00")
    with pytest.raises(LabelError, match=r"a\.txt is no text in UTF-8"):
        read_yolo(tmp_path / "a.txt", width=100, height=50, names=("plane",))


def test_names_of_yolo_as_list_and_as_mapping(tmp_path):
    assert read_names(save(tmp_path, "names: [plane, ship]\ntrain: images/train\n", "d.yaml")) == ("plane", "ship")
    assert read_names(save(tmp_path, "names: {1: ship, 0: plane}\nval: [a, b]\n", "d.yaml")) == ("plane", "ship")
    with pytest.raises(LabelError, match=r"names is \{1: 'ship'\}; expected a list"):
        read_names(save(tmp_path, "names: {1: ship}\n", "d.yaml"))

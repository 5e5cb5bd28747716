import json

import numpy as np
import pyogrio
import pytest
import shapely
from PIL import Image

from terralean.data.oriented.dota import write_labels
from terralean.data.oriented.layouts import ObjectsConfig, find_objects, is_of_objects
from terralean.errors import DatasetError, GridMismatch, LabelError, MissingFile, UnreadableScene

SQUARE = [10.0, 10, 20, 10, 20, 20, 10, 20]
YOLO = "0 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4\n"


def label(path, *names, corners=SQUARE):
    write_labels(path, np.tile(corners, (len(names), 1)), names, np.zeros(len(names), np.uint8))


def summary(found):
    return [
        (one.record.image.rsplit("/", 1)[1], one.split, [found.classes.names[i] for i in one.record.labels])
        for one in found.pictures
    ]


def test_dota_folders(tmp_path, picture):
    for name, objects in (("P1", ["ship", "plane"]), ("P2", [])):
        picture(f"images/{name}.png")
        label(tmp_path / "labelTxt" / f"{name}.txt", *objects)
    found = find_objects(tmp_path, ObjectsConfig())
    assert found.classes.names == ("plane", "ship")  # in alphabetical order
    assert summary(found) == [("P1.png", None, ["ship", "plane"]), ("P2.png", None, [])]
    assert "labelTxt" in found.layout and found.pictures[0].grid.width == 60
    ordered = find_objects(tmp_path, ObjectsConfig(classes=("ship", "plane", "bridge")))
    assert ordered.pictures[0].record.labels.tolist() == [0, 1]


def test_a_list_of_classes_has_the_last_word_on_their_order(tmp_path, picture):
    picture("images/P1.png")
    label(tmp_path / "labelTxt" / "P1.txt", "ship", "plane")
    (tmp_path / "classes.txt").write_text("ship\nplane\n\nbridge\n")
    found = find_objects(tmp_path, ObjectsConfig())
    assert found.classes.names == ("ship", "plane", "bridge") and found.pictures[0].record.labels.tolist() == [0, 1]


def test_dota_folders_of_splits(tmp_path, picture):
    for split in ("train", "val"):
        picture(f"{split}/images/{split}1.png")
        label(tmp_path / split / "labelTxt-v1.5" / f"{split}1.txt", "ship")
    picture("test/images/t1.png")  # its labels are kept back
    assert summary(find_objects(tmp_path, ObjectsConfig())) == [
        ("train1.png", "train", ["ship"]),
        ("val1.png", "validation", ["ship"]),
    ]


def test_two_versions_of_labels_want_a_word(tmp_path, picture):
    picture("images/P1.png")
    label(tmp_path / "labelTxt-v1.0" / "P1.txt", "ship")
    label(tmp_path / "labelTxt-v1.5" / "P1.txt", "ship", "crane")
    with pytest.raises(DatasetError, match=r"--set data\.labels=labelTxt-v1\.0"):
        find_objects(tmp_path, ObjectsConfig())
    assert summary(find_objects(tmp_path, ObjectsConfig(labels="labelTxt-v1.5")))[0][2] == ["ship", "crane"]


def test_images_and_labels_that_do_not_pair(tmp_path, picture):
    picture("images/P1.png")
    label(tmp_path / "labelTxt" / "P2.txt", "ship")
    with pytest.raises(DatasetError, match=r"do not pair: P1\.png has no label, P2\.txt has no image"):
        find_objects(tmp_path, ObjectsConfig())


def test_a_split_without_labels_is_refused_unless_it_is_the_test(tmp_path, picture):
    picture("train/images/a.png")
    label(tmp_path / "train" / "labelTxt" / "a.txt", "ship")
    picture("val/images/b.png")
    label(tmp_path / "val" / "labels" / "b.txt", "ship")
    with pytest.raises(DatasetError, match=r"val has images and no labelTxt/, which train/ has"):
        find_objects(tmp_path, ObjectsConfig())


def test_an_index_takes_xml_of_either_kind(tmp_path, picture):
    rows = {"a": DIOR, "b": HRSC}
    for name, text in rows.items():
        picture(f"{name}.png")
        (tmp_path / f"{name}.xml").write_text(text)
    (tmp_path / "index.csv").write_text("path,label\n" + "".join(f"{name}.png,{name}.xml\n" for name in rows))
    assert [names for _, _, names in summary(find_objects(tmp_path, ObjectsConfig()))] == [["dam"], ["ship"]]


def test_an_index_says_splits_and_groups(tmp_path, picture):
    for name in ("P1", "P2"):
        picture(f"images/{name}.png")
        label(tmp_path / "labelTxt" / f"{name}.txt", "ship")
    (tmp_path / "index.csv").write_text("path,label,split,group\nimages/P2.png,labelTxt/P2.txt,test,north\n")
    found = find_objects(tmp_path, ObjectsConfig())
    assert summary(found) == [("P2.png", "test", ["ship"])] and found.pictures[0].group == "north"
    (tmp_path / "index.csv").write_text("path,label\nimages/P3.png,labelTxt/P2.txt\n")
    with pytest.raises(DatasetError, match=r"names files that are not there: row 2 'images/P3\.png'"):
        find_objects(tmp_path, ObjectsConfig())


def test_yolo_folders(tmp_path, picture):
    (tmp_path / "data.yaml").write_text("names: [plane, ship]\ntrain: images/train\n")
    for split in ("train", "val"):
        picture(f"images/{split}/{split}1.jpg")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "train1.txt").write_text(YOLO)
    found = find_objects(tmp_path, ObjectsConfig())
    assert found.classes.names == ("plane", "ship")
    assert summary(found) == [("train1.jpg", "train", ["plane"]), ("val1.jpg", "validation", [])]
    np.testing.assert_allclose(found.pictures[0].record.polygons, [[6, 8, 18, 8, 18, 16, 6, 16]])


def roboflow(root, picture, *splits):
    """As Roboflow writes it: the YAML's folders lead out of the dataset."""
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['plane', 'ship']\n")
    for split in splits:
        picture(f"{split}/images/{split}1.jpg")
        (root / split / "labels").mkdir(parents=True)
        (root / split / "labels" / f"{split}1.txt").write_text(YOLO)


def test_yolo_folders_of_roboflow(tmp_path, picture):
    roboflow(tmp_path, picture, "train", "valid", "test")
    picture("valid/images/empty.jpg")
    found = find_objects(tmp_path, ObjectsConfig())
    assert is_of_objects(tmp_path) and found.classes.names == ("plane", "ship")
    assert found.layout == "YOLO-OBB with data.yaml, 4 images"
    assert summary(found) == [
        ("test1.jpg", "test", ["plane"]),
        ("train1.jpg", "train", ["plane"]),
        ("empty.jpg", "validation", []),
        ("valid1.jpg", "validation", ["plane"]),
    ]
    np.testing.assert_allclose(found.pictures[0].record.polygons, [[6, 8, 18, 8, 18, 16, 6, 16]])


def test_folders_of_roboflow_that_are_not_whole(tmp_path, picture):
    roboflow(tmp_path, picture, "train")
    picture("test/images/unlabelled.jpg")
    assert summary(find_objects(tmp_path, ObjectsConfig())) == [("train1.jpg", "train", ["plane"])]
    picture("valid/images/a.jpg")
    with pytest.raises(DatasetError, match=r"valid has images and no labels/, which train/ has; add the labels"):
        find_objects(tmp_path, ObjectsConfig())
    (tmp_path / "valid" / "labels").mkdir()
    (tmp_path / "valid" / "labels" / "b.txt").write_text(YOLO)
    with pytest.raises(DatasetError, match=r"valid/labels has b\.txt without an image"):
        find_objects(tmp_path, ObjectsConfig())


def test_yolo_labels_without_an_image(tmp_path, picture):
    (tmp_path / "data.yaml").write_text("names: [plane, ship]\n")
    picture("images/a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "classes.txt").write_text("plane\nship\n")  # labelImg's list
    assert summary(find_objects(tmp_path, ObjectsConfig())) == [("a.jpg", None, [])]
    (tmp_path / "labels" / "b.txt").write_text(YOLO)
    with pytest.raises(DatasetError, match=r"labels has b\.txt without an image"):
        find_objects(tmp_path, ObjectsConfig())


DIOR = (
    "<annotation><object><name>dam</name><robndbox><cx>20</cx><cy>20</cy><w>8</w><h>4</h><angle>0</angle></robndbox></object>"
    "</annotation>"
)
HRSC = (
    "<HRSC_Image><HRSC_Objects><HRSC_Object><Class_ID>100000013</Class_ID><mbox_cx>20</mbox_cx><mbox_cy>20</mbox_cy>"
    "<mbox_w>8</mbox_w><mbox_h>4</mbox_h><mbox_ang>0.2</mbox_ang></HRSC_Object></HRSC_Objects></HRSC_Image>"
)


def test_dior_folders_with_their_lists(tmp_path, picture):
    labels = tmp_path / "Annotations" / "Oriented Bounding Boxes"
    labels.mkdir(parents=True)
    for name, folder in (("00001", "trainval"), ("00002", "trainval"), ("11726", "test")):
        picture(f"JPEGImages-{folder}/{name}.jpg")
        (labels / f"{name}.xml").write_text(DIOR)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, names in (("train", "00001"), ("val", "00002"), ("test", "11726"), ("trainval", "00001\n00002")):
        (lists / f"{split}.txt").write_text(f"{names}\n")
    assert summary(find_objects(tmp_path, ObjectsConfig())) == [
        ("00001.jpg", "train", ["dam"]),
        ("00002.jpg", "validation", ["dam"]),
        ("11726.jpg", "test", ["dam"]),
    ]
    (lists / "val.txt").write_text("00002\n00009\n")
    with pytest.raises(DatasetError, match="lists of splits name 00009, without image or label"):
        find_objects(tmp_path, ObjectsConfig())


def test_a_list_of_training_and_validation_together_trains(tmp_path, picture):
    labels = tmp_path / "Annotations"
    labels.mkdir()
    for name in ("a", "b"):
        picture(f"JPEGImages/{name}.jpg")
        (labels / f"{name}.xml").write_text(DIOR)
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "trainval.txt").write_text("\ufeffa\n")
    (tmp_path / "ImageSets" / "test.txt").write_text("b\n")
    assert summary(find_objects(tmp_path, ObjectsConfig())) == [("a.jpg", "train", ["dam"]), ("b.jpg", "test", ["dam"])]
    picture("JPEGImages-test/b.jpg")
    with pytest.raises(DatasetError, match="images named b are in several folders"):
        find_objects(tmp_path, ObjectsConfig())


def test_hrsc_folders(tmp_path, picture):
    picture("FullDataSet/AllImages/100000001.bmp")
    labels = tmp_path / "FullDataSet" / "Annotations"
    labels.mkdir()
    (labels / "100000001.xml").write_text(HRSC)
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "test.txt").write_text("100000001\n")
    assert summary(find_objects(tmp_path, ObjectsConfig())) == [("100000001.bmp", "test", ["ship"])]
    assert find_objects(tmp_path, ObjectsConfig(hrsc_classes="id")).classes.names == ("100000013",)


def test_coco_files(tmp_path, picture):
    picture("images/a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 2, "name": "ship"}, {"id": 1, "name": "plane"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "segmentation": [SQUARE]}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(document))
    found = find_objects(tmp_path, ObjectsConfig())
    assert summary(found) == [("a.png", "train", ["ship"])] and found.classes.names == ("plane", "ship")
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"names the image a\.png, which is not in"):
        find_objects(tmp_path, ObjectsConfig())
    (tmp_path / "annotations" / "instances_train2017.json").write_text('{"images": [')
    with pytest.raises(LabelError, match=r"instances_train2017\.json is no complete JSON file"):
        find_objects(tmp_path, ObjectsConfig())


def save_polygons(path, shapes, names, *, crs="EPSG:32633", field="class"):
    wkb = np.array([shapely.to_wkb(shape) for shape in shapes], dtype=object)
    pyogrio.raw.write(path, wkb, [np.array(names, dtype=object)], fields=[field], crs=crs, geometry_type="Polygon")


def on_ground(*corners):
    """Corners in px of the fixture's scene: pixels of 2 m from 500 000, 5 000 000."""
    return shapely.Polygon([(5e5 + 2 * x, 5e6 - 2 * y) for x, y in corners])


@pytest.mark.parametrize("name", ["labels.gpkg", "labels.geojson", "a_labels.gpkg"])
def test_scenes_with_polygons_on_the_ground(tmp_path, scene, name):
    scene("a.tif")
    turned = on_ground((10, 8), (18, 12), (16, 16), (8, 12))
    round_one = on_ground((30, 10), (34, 10), (36, 12), (36, 14), (30, 14))
    elsewhere = on_ground((300, 10), (310, 10), (310, 20), (300, 20))
    save_polygons(tmp_path / name, [turned, round_one, elsewhere], ["ship", "plane", "ship"])
    found = find_objects(tmp_path, ObjectsConfig())
    assert summary(found) == [("a.tif", None, ["ship", "plane"])]
    polygons = found.pictures[0].record.polygons.reshape(-1, 4, 2)
    np.testing.assert_allclose(polygons[0], [(10, 8), (18, 12), (16, 16), (8, 12)], atol=1e-4)
    assert sorted(np.round(polygons[1], 4).tolist()) == [[30, 10], [30, 14], [36, 10], [36, 14]]


def test_an_attribute_with_the_class_can_be_named(tmp_path, scene):
    scene("a.tif")
    square = on_ground((10, 8), (18, 8), (18, 12), (10, 12))
    save_polygons(tmp_path / "labels.gpkg", [square], ["ship"], field="what")
    assert summary(find_objects(tmp_path, ObjectsConfig(label_field="what")))[0][2] == ["ship"]
    with pytest.raises(LabelError, match="has no attribute 'kind'"):
        find_objects(tmp_path, ObjectsConfig(label_field="kind"))


def test_labels_of_one_scene_are_not_those_of_another(tmp_path, scene):
    for name in ("a", "b"):
        scene(f"{name}.tif")
    save_polygons(tmp_path / "a_labels.gpkg", [on_ground((10, 8), (18, 8), (18, 12), (10, 12))], ["ship"])
    with pytest.raises(DatasetError, match=r"2 scenes and a_labels\.gpkg; name the labels of X\.tif X_labels\.gpkg"):
        find_objects(tmp_path, ObjectsConfig())
    empty = {"type": "FeatureCollection", "features": []}
    (tmp_path / "b_labels.geojson").write_text(json.dumps(empty))  # no attribute, as there is no object
    assert summary(find_objects(tmp_path, ObjectsConfig())) == [("a.tif", None, ["ship"]), ("b.tif", None, [])]


def test_polygons_of_several_parts_are_told_of(tmp_path, scene, caplog):
    scene("a.tif")
    parts = [on_ground((10, 8), (18, 8), (18, 12), (10, 12)), on_ground((40, 8), (44, 8), (44, 12), (40, 12))]
    feature = {"type": "Feature", "properties": {"class": "ship"}, "geometry": shapely.MultiPolygon(parts).__geo_interface__}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    (tmp_path / "labels.geojson").write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    (one,) = find_objects(tmp_path, ObjectsConfig()).pictures
    assert one.record.polygons.reshape(4, 2).max(axis=0).tolist() == pytest.approx([44, 12])
    assert "labels.geojson: 1 polygon over" in caplog.text and "has several parts; one box is taken round all" in caplog.text


def test_polygons_over_an_image_without_a_place(tmp_path, picture):
    picture("a.png")
    save_polygons(tmp_path / "labels.gpkg", [on_ground((10, 8), (18, 8), (18, 12))], ["ship"])
    with pytest.raises(GridMismatch, match=r"a\.png, which has no CRS"):
        find_objects(tmp_path, ObjectsConfig())


def test_wrong_labels_are_found_when_the_dataset_is(tmp_path, picture):
    picture("images/P1.png")
    label(tmp_path / "labelTxt" / "P1.txt", "ship", corners=[900.0, 900, 910, 900, 910, 910, 900, 910])
    with pytest.raises(LabelError, match=r"P1\.txt, line 1: .* lies outside its image of 60 x 40 px"):
        find_objects(tmp_path, ObjectsConfig())
    label(tmp_path / "labelTxt" / "P1.txt", "ship", corners=[10.0, 10, 20, 20, 20, 10, 10, 20])
    with pytest.raises(LabelError, match="crosses itself"):
        find_objects(tmp_path, ObjectsConfig(crossing="refuse"))
    assert len(find_objects(tmp_path, ObjectsConfig()).pictures[0].record) == 1
    with pytest.raises(LabelError, match="the class 'ship' is none of plane"):
        find_objects(tmp_path, ObjectsConfig(classes=("plane",)))


def test_an_image_of_another_size_than_was_labelled(tmp_path, picture):
    picture("JPEGImages/a.jpg")
    (tmp_path / "Annotations").mkdir()
    text = DIOR.replace("<annotation>", "<annotation><size><width>800</width><height>800</height></size>")
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(LabelError, match=r"a\.xml says that .*a\.jpg has 800 x 800 px, it has 60 x 40 px"):
        find_objects(tmp_path, ObjectsConfig())


def test_numbers_of_colours_are_no_brightness(tmp_path, picture):
    path = picture("images/P1.png")
    label(tmp_path / "labelTxt" / "P1.txt", "ship")
    with Image.open(path) as image:
        grey, colours = image.convert("L"), image.quantize(16)
    colours.save(path)
    with pytest.raises(UnreadableScene, match=r"P1\.png holds numbers of a palette's colours.*gdal_translate -expand rgb"):
        find_objects(tmp_path, ObjectsConfig())
    path.unlink()
    grey.save(path.with_suffix(".bmp"))  # which has a palette of greys
    assert len(find_objects(tmp_path, ObjectsConfig()).pictures) == 1


def test_folders_that_are_no_dataset(tmp_path, picture):
    with pytest.raises(MissingFile, match="is no folder"):
        find_objects(tmp_path / "none", ObjectsConfig())
    with pytest.raises(DatasetError, match="it holds nothing; understood are"):
        find_objects(tmp_path, ObjectsConfig())
    picture("images/P1.png")
    (tmp_path / "labelTxt").mkdir()
    (tmp_path / "labelTxt" / "P1.txt").write_text("")
    with pytest.raises(LabelError, match="no image has an object"):
        find_objects(tmp_path, ObjectsConfig())


# Real images.


def test_the_dota_samples_have_the_objects_that_their_index_counts(shared):
    found = find_objects(shared / "data/rgb/det/dota_samples", ObjectsConfig())
    counts = {one.record.image.rsplit("/", 1)[1]: len(one.record) for one in found.pictures}
    assert counts == {"P0003.png": 55, "P0004.png": 107, "P0005.png": 130, "P0706.png": 536, "P1478__1__853___962.png": 295}
    of_class = np.bincount(np.concatenate([one.record.labels for one in found.pictures])).tolist()
    assert dict(zip(found.classes.names, of_class, strict=True)) == {
        "harbor": 5,
        "large-vehicle": 258,
        "ship": 531,
        "small-vehicle": 329,
    }
    assert {one.facts.get("imagesource") for one in found.pictures} == {"GoogleEarth", None}
    hard = [int((one.record.difficult > 0).sum()) for one in found.pictures]
    assert hard == [13, 34, 21, 6, 8]


def test_the_yolo_samples_have_the_objects_that_their_index_counts(shared):
    found = find_objects(shared / "data/rgb/det/dota8", ObjectsConfig())
    assert sum(len(one.record) for one in found.pictures) == 133 and len(found.classes) == 15
    assert [one.split for one in found.pictures] == ["train"] * 4 + ["validation"] * 4

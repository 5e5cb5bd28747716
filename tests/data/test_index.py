"""What is found in folders, and what is said where nothing fits."""

import csv
import logging
import re
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import scipy.io
import shapely
from rasterio.transform import from_origin

from terralean.data.config import DataConfig
from terralean.data.index import find, is_dataset
from terralean.errors import BandMismatch, ConfigError, DatasetError, LabelError, MissingFile

IMAGE = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
MASK = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3


@pytest.fixture
def write_pair(write_image):
    def write(image: str, label: str) -> None:
        write_image(image, IMAGE)
        write_image(label, MASK)

    return write


def write_index(root: Path, rows: list[dict[str, str]]) -> None:
    with (root / "index.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def stems(found) -> list[tuple[str, str, str | None]]:
    return [(Path(s.image).stem, Path(s.label).stem, s.split) for s in found.sources]


def test_an_index_with_splits_groups_and_other_columns(tmp_path, write_pair):
    for name in "abc":
        write_pair(f"x/{name}.tif", f"y/{name}.png")
    splits = ["train", "val", "Test"]
    rows = [
        {"path": f"x/{n}.tif", "label": f"y/{n}.png", "split": s, "group": f"g{n}", "bytes": "1"}
        for n, s in zip("abc", splits, strict=True)
    ]
    write_index(tmp_path, rows)
    found = find(tmp_path, DataConfig())
    assert [(s.split, s.group) for s in found.sources] == [("train", "ga"), ("validation", "gb"), ("test", "gc")]
    assert found.layout == "index.csv with 3 rows, split given: 1 train, 1 validation, 1 test"
    assert found.classes.names == ("class 0", "class 1", "class 2")
    assert len(found.bands) == 3


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([{"path": "no.tif", "label": "a.png"}], "row 2 'no.tif'; paths are relative to"),
        ([{"path": "a.tif", "label": ""}], "row 2 ''"),
        ([{"image": "a.tif", "mask": "a.png"}], "has no column path and no label; it needs path,label"),
        (
            [{"path": "a.tif", "label": "a.png", "split": "dev"}],
            "splits other than train, val (or validation) and test: row 2 'dev'",
        ),
        ([{"path": "a.tif", "label": "a.png"}] * 2, "rows with the same image: a.tif; keep one row for each"),
    ],
)
def test_a_faulty_index_is_an_error_with_rows(tmp_path, write_pair, rows, text):
    write_pair("a.tif", "a.png")
    write_index(tmp_path, rows)
    with pytest.raises(DatasetError, match=re.escape(text)):
        find(tmp_path, DataConfig())


@pytest.mark.parametrize("masks", ["masks", "labels"])
def test_images_and_masks_pair_by_stem(tmp_path, write_pair, masks):
    for name in "ab":
        write_pair(f"images/{name}.tif", f"{masks}/{name}.png")
    found = find(tmp_path, DataConfig())
    assert stems(found) == [("a", "a", None), ("b", "b", None)]
    assert found.layout == f"images/ and {masks}/ paired by file name, 2 pairs, no split given"


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/{s}/a{s}.tif", "masks/{s}/a{s}.png"),
        ("{s}/images/a{s}.tif", "{s}/labels/a{s}.png"),
        ("img_dir/{s}/a{s}.tif", "ann_dir/{s}/a{s}.png"),
    ],
)
def test_folders_may_give_the_split(tmp_path, write_pair, image, label):
    for split in ("train", "val", "test"):
        write_pair(image.format(s=split), label.format(s=split))
    found = find(tmp_path, DataConfig())
    assert sorted(stems(found)) == [("atest", "atest", "test"), ("atrain", "atrain", "train"), ("aval", "aval", "validation")]
    assert "split given: 1 train, 1 validation, 1 test" in found.layout


def test_all_unpaired_files_are_counted_and_five_are_named(tmp_path, write_pair, write_image):
    write_pair("images/ok.tif", "masks/ok.png")
    for i in range(6):
        write_image(f"images/i{i}.tif", IMAGE)
    write_image("masks/z.png", MASK)
    text = "do not pair: images/i0.tif has no mask, images/i1.tif has no mask"
    with pytest.raises(DatasetError, match=re.escape(text)) as error:
        find(tmp_path, DataConfig())
    assert "and 2 more; give each image a mask with its name" in str(error.value)


@pytest.mark.parametrize("label", ["labels.tif", "place_labels.tif"])
def test_one_scene_and_its_label_raster(tmp_path, write_pair, label):
    write_pair("place.tif", label)
    found = find(tmp_path, DataConfig())
    assert stems(found) == [("place", Path(label).stem, None)]


def test_a_scene_file_with_labels_named_in_the_config(tmp_path, write_pair):
    write_pair("place.tif", "drawn/truth.png")
    config = DataConfig(labels="drawn/truth.png")
    assert stems(find(tmp_path / "place.tif", config)) == [("place", "truth", None)]
    with pytest.raises(DatasetError, match=r"place\.tif is one scene and its labels are not named; .* data\.labels=FILE"):
        find(tmp_path / "place.tif", DataConfig())
    with pytest.raises(MissingFile, match=r"nothing\.png is not there; data\.labels is a file, relative to"):
        find(tmp_path / "place.tif", DataConfig(labels="nothing.png"))


def test_scenes_share_one_vector_file_that_names_the_classes(tmp_path, write_image):
    for i in range(2):
        write_image(f"s{i}.tif", IMAGE, crs="EPSG:32633", transform=from_origin(5e5 + 80 * i, 5e6, 10, 10))
    shapes = shapely.to_wkb([shapely.box(5e5, 5e6 - 40, 5e5 + 40, 5e6), shapely.box(5e5 + 80, 5e6 - 40, 5e5 + 120, 5e6)])
    names = np.array(["water", "field"], dtype=object)
    pyogrio.raw.write(
        tmp_path / "labels.gpkg",
        shapes,
        [names],
        ["cover"],
        geometry_type="Polygon",
        crs="EPSG:32633",
        driver="GPKG",
        layer="l",
    )
    found = find(tmp_path, DataConfig(label_field="cover"))
    assert found.classes.names == ("field", "water")
    assert stems(found) == [("s0", "labels", None), ("s1", "labels", None)]


# Folders by name.

PARTS = r"_(\d+_\d+)_"


@pytest.fixture
def delivery(tmp_path, write_image):
    """Two tiles as ISPRS delivers Potsdam, with a folder of heights and world files beside."""
    for tile in ("2_10", "7_7"):
        for folder, name in (
            ("1_DSM", f"dsm_potsdam_0{tile}.tif"),
            ("2_Ortho_RGB", f"top_potsdam_{tile}_RGB.tif"),
            ("3_Ortho_IRRG", f"top_potsdam_{tile}_IRRG.tif"),
        ):
            write_image(f"{folder}/{name}", IMAGE)
        for folder, end in (("5_Labels_all", ""), ("5_Labels_all_noBoundary", "_noBoundary")):
            write_image(f"{folder}/top_potsdam_{tile}_label{end}.tif", MASK)
        (tmp_path / "2_Ortho_RGB" / f"top_potsdam_{tile}_RGB.tfw").write_text("1\n")
    return tmp_path


def test_the_folders_of_a_delivery_are_named_in_the_recipe(delivery):
    assert is_dataset(delivery)
    config = DataConfig(images="3_Ortho_IRRG", labels="5_Labels_all_noBoundary", group=PARTS)
    found = find(delivery, config)
    assert found.layout == "3_Ortho_IRRG/ and 5_Labels_all_noBoundary/ paired by data.group, 2 pairs, no split given"
    assert [(Path(s.image).name, Path(s.label).name, s.group) for s in found.sources] == [
        (f"top_potsdam_{tile}_IRRG.tif", f"top_potsdam_{tile}_label_noBoundary.tif", tile) for tile in ("2_10", "7_7")
    ]


def test_an_only_folder_of_a_delivery_need_not_be_named(delivery):
    for folder in ("2_Ortho_RGB", "5_Labels_all_noBoundary"):
        (delivery / folder).rename(delivery / f"not_{folder}")
    assert find(delivery, DataConfig(group=PARTS)).layout.startswith("3_Ortho_IRRG/ and 5_Labels_all/ paired by data.group")


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({}, DatasetError, "holds 2_Ortho_RGB, 3_Ortho_IRRG: say which is meant, --set data.images=2_Ortho_RGB"),
        (
            {"images": "2_Ortho_RGB"},
            DatasetError,
            "holds 5_Labels_all, 5_Labels_all_noBoundary: say which is meant, --set data.labels=",
        ),
        ({"labels": "5_Labels_all"}, DatasetError, "--set data.images=2_Ortho_RGB"),
        (
            {"images": "2_Ortho", "labels": "5_Labels_all"},
            MissingFile,
            "has no folder 2_Ortho, which data.images names; it has 1_DSM,",
        ),
        (
            {"images": "2_Ortho_RGB", "labels": "5_Labels_all"},
            DatasetError,
            "2_Ortho_RGB/top_potsdam_2_10_RGB.tif has no mask, ",
        ),
        (
            {"images": "2_Ortho_RGB", "labels": "5_Labels_all", "group": "top"},
            DatasetError,
            "data.group 'top' captures the same in",
        ),
    ],
)
def test_folders_that_are_not_told_apart_or_do_not_pair_are_refused(delivery, settings, kind, text):
    with pytest.raises(kind, match=re.escape(text)):
        find(delivery, DataConfig(**settings))


def test_a_tile_without_labels_is_named(delivery):
    (delivery / "5_Labels_all/top_potsdam_7_7_label.tif").unlink()
    config = DataConfig(images="2_Ortho_RGB", labels="5_Labels_all", group=PARTS)
    with pytest.raises(
        DatasetError, match=r"do not pair by data\.group .*: top_potsdam_7_7_RGB\.tif has no label; add what is"
    ):
        find(delivery, config)


def test_any_two_folders_of_equal_names_may_be_named(tmp_path, write_pair):
    for split in ("train", "val"):
        for i in range(2):
            write_pair(f"seen/rgb/{split}/{i}{split}.tif", f"truth/{split}/{i}{split}.png")
    (tmp_path / "index.csv").write_text("path,label\n")
    found = find(tmp_path, DataConfig(images="seen/rgb", labels="truth"))
    assert found.layout == "rgb/ and truth/ paired by file name, 4 pairs, split given: 2 train, 2 validation"


def test_a_folder_of_nothing_known_says_what_is_there_and_what_is_understood(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "notes.txt").write_text("")
    assert not is_dataset(tmp_path)
    with pytest.raises(DatasetError, match=r"it holds notes\.txt, photos/; understood are: index\.csv .*img_dir"):
        find(tmp_path, DataConfig())
    with pytest.raises(MissingFile, match="is not there; give the folder"):
        find(tmp_path / "gone", DataConfig())


def test_images_with_other_bands_are_named(tmp_path, write_pair, write_image):
    write_pair("images/a.tif", "masks/a.png")
    write_image("images/b.tif", IMAGE[:2])
    write_image("masks/b.png", MASK)
    with pytest.raises(BandMismatch, match=r"(?s)images/a\.tif: 3 x uint8.*images/b\.tif: 2 x uint8.*data\.bands"):
        find(tmp_path, DataConfig())
    assert len(find(tmp_path, DataConfig(bands=(2, 1))).bands) == 2


def test_groups_are_what_the_expression_captures(tmp_path, write_pair):
    for name in ("tile1_a", "tile2_b"):
        write_pair(f"images/{name}.tif", f"masks/{name}.png")
    groups = [s.group for s in find(tmp_path, DataConfig(group=r"(tile\d)_")).sources]
    assert groups == ["tile1", "tile2"]
    assert [s.group for s in find(tmp_path, DataConfig(group=r"tile\d")).sources] == groups
    with pytest.raises(DatasetError, match=r"'scene' is not found in the file name tile1_a\.tif"):
        find(tmp_path, DataConfig(group="scene"))


def test_classes_come_from_the_config_then_from_the_table_then_from_the_labels(tmp_path, write_pair, caplog):
    write_pair("images/a.tif", "masks/a.png")
    with caplog.at_level(logging.INFO, logger="terralean"):
        assert find(tmp_path, DataConfig()).classes.names == ("class 0", "class 1", "class 2")
    assert "classes are named class 0, class 1, class 2" in caplog.text
    (tmp_path / "classes.csv").write_text("value,name,colour\n1,road,#0000ff\n0,field,#00ff00\n2,roof,#ff0000\n")
    table = find(tmp_path, DataConfig()).classes
    assert (table.names, table.colours) == (("field", "road", "roof"), ((0, 255, 0), (0, 0, 255), (255, 0, 0)))
    config = DataConfig(classes=("x", "y", "z"), colours=("#010203", "#040506", "#070809"))
    assert find(tmp_path, config).classes.colours[1] == (4, 5, 6)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("value,name\n1,a\n1,b\n", "names the values 1, 1; they must be the numbers that labels hold for the classes"),
        ("value,name\n0,a\n255,b\n", "names the values 0, 255; they must be the numbers that labels hold"),
        ("value,name,colour\n0,a,red\n", "classes.csv: a colour is #rrggbb, got 'red'"),
        ("id,label\n0,a\n", "has columns id, label; it needs value,name"),
    ],
)
def test_a_faulty_class_table_is_an_error(tmp_path, write_pair, table, text):
    write_pair("images/a.tif", "masks/a.png")
    (tmp_path / "classes.csv").write_text(table)
    with pytest.raises((LabelError, ConfigError), match=re.escape(text)):
        find(tmp_path, DataConfig())


def test_a_colour_is_checked(tmp_path, write_pair):
    write_pair("images/a.tif", "masks/a.png")
    with pytest.raises(ConfigError, match="a colour is #rrggbb, got 'red'"):
        find(tmp_path, DataConfig(classes=("a", "b", "c"), colours=("red", "#000000", "#000000")))


def test_real_folders_are_understood(shared):
    folder = shared / "data" / "rgb" / "seg"
    counts = {name: len(find(folder / name, DataConfig()).sources) for name in ("dubai", "gsi_roads", "s2_india_rgbn")}
    assert counts == {"dubai": 48, "gsi_roads": 26, "s2_india_rgbn": 14}
    assert len(find(folder / "s2_india_rgbn", DataConfig()).bands) == 4


def test_a_cube_and_its_label_map_are_a_dataset_and_variables_can_be_named(tmp_path):
    cube, labels = np.arange(6 * 7 * 12).reshape(6, 7, 12), np.arange(42).reshape(6, 7) % 3
    scipy.io.savemat(tmp_path / "a.mat", {"cube": cube, "other": cube, "gt": labels, "parts": labels})
    config = DataConfig(labels="a.mat#gt", label_values=(1, 2), ignore=(0,))
    found = find(Path(f"{tmp_path / 'a.mat'}#cube"), config)
    assert (len(found.bands), found.classes.names) == (12, ("class 1", "class 2"))
    assert found.sources[0].label.endswith("a.mat#gt")
    (tmp_path / "index.csv").write_text("path,label\na.mat#cube,a.mat#gt\n")
    assert len(find(tmp_path, DataConfig(label_values=(1, 2), ignore=(0,))).bands) == 12
    with pytest.raises(MissingFile, match=r"b\.mat#gt is not there"):
        find(Path(f"{tmp_path / 'a.mat'}#cube"), DataConfig(labels="b.mat#gt"))

"""Labelled images are found in every layout that is understood, and what is wrong with a folder is said."""

from collections import Counter
from pathlib import Path

import pytest

from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_index import find_scenes, is_scene_dataset
from terralean.errors import ConfigError, DatasetError, LabelError, MissingFile, TerraleanError, UnreadableScene
from terralean.spec import Classes


def find(root: Path, *, known: Classes | None = None, **settings):
    return find_scenes(root, SceneDataConfig(**settings), classes=known)


def named(dataset) -> dict[str, tuple[str, str | None]]:
    """Class and split by file name."""
    return {Path(image.path).name: (dataset.classes.names[image.label], image.split) for image in dataset.images}


def message(root: Path, kind: type[TerraleanError], **settings) -> str:
    with pytest.raises(kind) as error:
        find(root, **settings)
    assert type(error.value) is kind
    return str(error.value)


# layouts


def test_a_folder_per_class(class_folders):
    root = class_folders({"water": 2, "field": 3})
    dataset = find(root)
    assert is_scene_dataset(root)
    assert dataset.classes.names == ("field", "water")
    assert dataset.layout == "a folder per class, no split given"
    assert named(dataset) == {f"{c}_{i}.png": (c, None) for c, n in (("field", 3), ("water", 2)) for i in range(n)}
    assert dataset.bands.names == ("red", "green", "blue")


def test_classes_keep_the_order_of_the_settings(class_folders):
    dataset = find(class_folders({"water": 2, "field": 3}))
    other = find(Path(dataset.root), classes=("water", "field"))
    assert other.classes.names == ("water", "field")
    assert named(other) == named(dataset)


def test_folders_of_splits(class_folders):
    class_folders({"field": 2, "water": 2}, within="train")
    class_folders({"water": 1}, within="val")
    dataset = find(class_folders({"field": 1}, within="test"))
    assert dataset.classes.names == ("field", "water")
    assert Counter(image.split for image in dataset.images) == {"train": 4, "validation": 1, "test": 1}
    assert dataset.layout == "folders test, train, val with a folder per class, split given: 4 train, 1 validation, 1 test"


def test_a_class_may_be_called_train(class_folders):
    dataset = find(class_folders({"train": 2, "plane": 2}))
    assert dataset.classes.names == ("plane", "train")
    assert all(image.split is None for image in dataset.images)


@pytest.mark.parametrize("column", ["label", "class", "cls"])
def test_an_index(class_folders, column):
    root = class_folders({"a": 3})
    (root / "index.csv").write_text(f"path,{column},split,group\na/a_2.png,2,test,x\na/a_0.png,10,train,\na/a_1.png,2,val,y\n")
    dataset = find(root)
    assert dataset.classes.names == ("2", "10")  # by number
    assert named(dataset) == {"a_0.png": ("10", "train"), "a_1.png": ("2", "validation"), "a_2.png": ("2", "test")}
    assert {Path(image.path).name: image.group for image in dataset.images} == {"a_0.png": None, "a_1.png": "y", "a_2.png": "x"}


def test_an_index_with_an_empty_label_and_a_filled_class(class_folders):
    root = class_folders({"a": 2})
    (root / "index.csv").write_text("path,label,cls\na/a_0.png,,sea\na/a_1.png,,land\n")
    assert find(root).classes.names == ("land", "sea")


@pytest.fixture
def lists(class_folders):
    """As MillionAID: numbers are not in the order of names."""
    root = class_folders({"all_img": 6})
    (root / "train_labels.txt").write_text("all_img_0.png water 0\nall_img_1.png field 1\n\nall_img_2.png field 1\n")
    (root / "valid_labels.txt").write_text("all_img_3.png field 1\n")
    return root


def test_list_files(lists):
    dataset = find(lists)
    assert dataset.classes.names == ("water", "field")
    assert dataset.layout == "list files train_labels.txt, valid_labels.txt, split given: 3 train, 1 test"
    assert named(dataset)["all_img_0.png"] == ("water", "train")
    assert named(dataset)["all_img_3.png"] == ("field", "test")


def test_beside_a_list_of_tests_valid_is_for_validation(lists):
    (lists / "test_labels.txt").write_text("all_img_4.png water 0\n")
    assert named(find(lists))["all_img_3.png"] == ("field", "validation")
    assert named(find(lists))["all_img_4.png"] == ("water", "test")


def test_one_of_several_list_files_is_chosen(lists, class_folders):
    """As for NWPU-RESISC45, whose images lie in a folder per class."""
    class_folders({"field": 2, "water": 2})
    for kind in ("train", "valid"):
        (lists / f"{kind}_labels.txt").unlink()
    for variant, judged in (("19_0", "water_1.png water 1"), ("28_0", "field_1.png field 0")):
        (lists / f"train_labels_{variant}.txt").write_text("field_0.png field 0\nwater_0.png water 1\n")
        (lists / f"valid_labels_{variant}.txt").write_text(f"{judged}\n")
    text = message(lists, DatasetError)
    assert "list files of 2 splits, '19_0', '28_0'; say which is meant, in quotes" in text
    assert """--set "data.lists='19_0'\"""" in text
    dataset = find(lists, lists="28_0")
    assert dataset.layout.startswith("list files train_labels_28_0.txt, valid_labels_28_0.txt")
    assert named(dataset)["field_1.png"] == ("field", "test")
    assert "water_1.png" not in named(dataset)
    assert "'19_0', '28_0', but none for data.lists '55_1'" in message(lists, DatasetError, lists="55_1")


def test_real_sets(shared):
    for name, classes, train, test in (("eurosat_rgb", 10, 2000, 500), ("aid_150", 30, 240, 60), ("rsscn7", 7, 21, 7)):
        dataset = find(shared / "data" / "rgb" / "cls" / name)
        assert len(dataset.classes) == classes
        assert Counter(image.split for image in dataset.images) == {"train": train, "test": test}
        assert all(Path(image.path).parent.name == dataset.classes.names[image.label] for image in dataset.images)


# groups and a trained model's classes


def test_groups_are_captured_from_file_names(class_folders):
    dataset = find(class_folders({"a": 2, "b": 1}), group=r"_(\d)")
    assert [image.group for image in dataset.images] == ["0", "1", "0"]


def test_a_trained_models_classes_are_found_by_name(class_folders):
    classes = Classes.named(["water", "ice", "field"])
    dataset = find(class_folders({"field": 1, "water": 1}), known=classes)
    assert dataset.classes is classes
    assert named(dataset) == {"field_0.png": ("field", None), "water_0.png": ("water", None)}
    assert find(class_folders({"field": 1}), known=classes).classes == classes
    with pytest.raises(LabelError, match=r"class 'field' is none of sea, land; take its images out"):
        find(Path(dataset.root), known=Classes.named(["sea", "land"]))


# what is wrong


def test_one_class_only(class_folders):
    root = class_folders({"field": 3})
    assert message(root, DatasetError) == (
        f"{root}: a folder per class, no split given, but one class only, field; expected two or more, each in a folder (or "
        "with a label) of its own"
    )


def test_an_empty_class(class_folders):
    root = class_folders({"field": 3, "water": 0, "wood": 2})
    fix = "put images of class water there, or take the folder away"
    assert message(root, DatasetError) == f"{root}/water is empty; {fix}"
    (root / "water" / "readme.txt").write_text("")
    assert message(root, DatasetError) == f"{root}/water has no image, but readme.txt; {fix}"
    (root / "water" / "readme.txt").unlink()
    (root / "water" / "lake").mkdir()
    assert "water has no image, but folders (lake), and images of a class lie in its folder itself" in message(
        root, DatasetError
    )


def test_a_class_of_the_settings_without_an_image(class_folders):
    root = class_folders({"field": 2, "wood": 2})
    text = message(root, LabelError, classes=("field", "wood", "ice"))
    assert text == f"{root} has no image of ice, which data.classes names; it has field, wood; give some, or take the name out"


def test_a_label_that_the_settings_do_not_name(class_folders):
    root = class_folders({"field": 2, "wood": 2, "wodo": 1})
    with pytest.raises(LabelError, match=r"wodo: class 'wodo' is none of field, wood; write it as 'wood'"):
        find(root, classes=("field", "wood"))


def test_no_dataset(tmp_path, paint):
    assert message(tmp_path / "not there", MissingFile).endswith("give the one that holds the labelled images")
    (tmp_path / "empty").mkdir()
    assert "empty is no dataset: it holds nothing; understood are: index.csv" in message(tmp_path / "empty", DatasetError)
    paint("flat/a.png")
    assert "flat is no dataset: it holds a.png; understood are" in message(tmp_path / "flat", DatasetError)
    assert not is_scene_dataset(tmp_path / "flat")


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("file,label\na,b\n", DatasetError, "has no column path; it needs path,label (or class)"),
        ("path,name\na,b\n", DatasetError, "has no column label; it needs"),
        ("path,label\na/a_0.png,x\na/b.png,y\n", DatasetError, "names files that are not there: row 3 'a/b.png'; paths are"),
        ("path,label\na/a_0.png,x\na/a_1.png,\n", LabelError, "has rows without a label: row 3 'a/a_1.png'; label them"),
        ("path,label\na/a_0.png,x\na/a_0.png,y\n", DatasetError, "has rows with the same image: a/a_0.png; keep one row"),
        ("path,label,split\na/a_0.png,x,dev\na/a_1.png,y,train\n", DatasetError, "has splits other than train, val"),
        ("path,label\na/a_0.png,x\n./a/a_0.png,y\n", DatasetError, "has rows with the same image: a/a_0.png; keep one row"),
        ("path,label\n", DatasetError, "index.csv with 0 rows, no split given, but no image in it"),
    ],
)
def test_an_index_with_a_fault(class_folders, text, kind, expected):
    root = class_folders({"a": 2})
    (root / "index.csv").write_text(text)
    assert expected in message(root, kind)


@pytest.mark.parametrize(
    ("line", "kind", "expected"),
    [
        ("all_img_4.png water", DatasetError, "valid_labels.txt, line 2, is 'all_img_4.png water'; expected a file, the name"),
        ("all_img_4.png water one", DatasetError, "expected a file, the name of its class and the number of that, from 0"),
        ("all_img_4.png water 2", LabelError, "line 2, says that water is 2, before water is 0; a class has one number"),
        ("all_img_4.png ice 1", LabelError, "line 2, says that ice is 1, before 1 is field; a class has one number"),
        ("gone.png water 0", DatasetError, "images are listed that are not there: gone.png (valid_labels.txt, line 2)"),
        ("all_img_0.png water 0", DatasetError, "images are listed more than once: all_img_0.png; keep one line"),
    ],
)
def test_a_list_with_a_fault(lists, line, kind, expected):
    (lists / "valid_labels.txt").write_text(f"all_img_3.png field 1\n{line}\n")
    assert expected in message(lists, kind)


def test_lists_have_no_meaning_for_folders(class_folders):
    root = class_folders({"a": 1, "b": 1})
    assert "data.lists is '28_0', but" in message(root, ConfigError, lists="28_0")


def test_one_list_is_not_chosen_among_several(lists):
    text = message(lists, ConfigError, lists="82_0")
    assert text == f"data.lists is '82_0', but {lists} holds the lists of one split only; leave data.lists out"


def test_lists_as_windows_writes_them(lists):
    expected = named(find(lists))
    for path in lists.glob("*_labels.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert named(find(lists)) == expected


def test_a_list_in_another_encoding(lists):
    (lists / "valid_labels.txt").write_bytes("wälder.png water 0\n".encode("latin-1"))
    assert "valid_labels.txt is no text in UTF-8" in message(lists, DatasetError)


def test_images_within_the_folder_of_a_class(class_folders):
    class_folders({"inner": 2}, within="a")
    root = class_folders({"a": 2, "b": 2})
    assert "a holds images, and more of them in inner; images of a class lie in its folder itself" in message(
        root, DatasetError
    )


def test_images_beside_the_folders_of_classes(class_folders, paint):
    root = class_folders({"a": 2, "b": 2})
    paint("map.png")
    assert message(root, DatasetError).startswith(f"{root} holds folders of images, and images beside them: map.png; move")


@pytest.mark.parametrize("masks", ["masks", "labels"])
def test_images_and_masks_are_no_classes(class_folders, masks):
    assert f"holds images and {masks}, so that pixels have classes" in message(
        class_folders({"images": 2, masks: 2}), DatasetError
    )


def test_a_link_that_leads_nowhere_counts_as_an_image(class_folders):
    root = class_folders({"a": 2, "b": 2})
    (root / "a" / "a_00.png").symlink_to(root / "gone.png")
    assert [Path(image.path).name for image in find(root).images] == ["a_0.png", "a_00.png", "a_1.png", "b_0.png", "b_1.png"]


def test_files_of_other_kinds_are_named(class_folders, caplog):
    root = class_folders({"a": 2, "b": 2})
    for name in ("a/a_2.webp", "b/b_2.webp", "b/b_2.png.aux.xml", "b/readme", "b/.hidden"):
        (root / name).touch()
    assert len(find(root).images) == 4
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"{root}: files that are no images by their names are left aside: 2 of .webp, 1 of no suffix"]


def test_bands_are_those_of_the_first_image_that_can_be_read(class_folders):
    root = class_folders({"a": 2, "b": 1})
    (root / "a" / "a_0.png").write_bytes(b"")
    assert len(find(root).bands) == 3
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    assert "b_0.png is not an image" in message(root, UnreadableScene)


def test_hidden_folders_are_no_classes(class_folders):
    root = class_folders({"a": 1, "b": 1, ".cache": 1})
    assert find(root).classes.names == ("a", "b")

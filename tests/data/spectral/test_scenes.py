import numpy as np
import pytest

from terralean.data.spectral.config import SpectralDataConfig
from terralean.data.spectral.scenes import find_cubes, holds_cubes
from terralean.errors import DatasetError, GridMismatch, LabelError, MissingFile
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands

CUBE = Grid(width=40, height=48, crs="EPSG:32633", transform=(30.0, 0.0, 3e5, 0.0, -30.0, 5.8e6))


def find(root, **settings):
    return find_cubes(root, SpectralDataConfig(**settings))


def test_a_folder_with_a_cube_and_its_labels(tmp_path, labelled_cube):
    labelled_cube(tmp_path)
    found = find(tmp_path)
    assert [scene.name for scene in found.scenes] == ["scene"]
    assert found.scenes[0].labels.endswith("scene_gt.hdr")
    assert found.classes.names == ("field", "water", "wood")
    assert found.bands.wavelength_nm[:2] == (400.0, 450.0)
    assert find(tmp_path / "scene.hdr").scenes == found.scenes


def test_several_cubes_go_by_name(tmp_path, labelled_cube):
    for name in ("one", "two"):
        labelled_cube(tmp_path, name=name)
    found = find(tmp_path)
    assert [(scene.name, scene.labels.rpartition("/")[2]) for scene in found.scenes] == [
        ("one", "one_gt.hdr"),
        ("two", "two_gt.hdr"),
    ]
    labelled_cube(tmp_path, name="three", labels=False)
    with pytest.raises(DatasetError, match=r"no labels for .*three.hdr"):
        find(tmp_path)


def test_labels_of_another_cube_are_not_taken(tmp_path, labelled_cube):
    labelled_cube(tmp_path, name="one")
    labelled_cube(tmp_path, name="two", labels=False)
    with pytest.raises(DatasetError, match=r"two.hdr has no labels beside it; .*data.labels=FILE"):
        find(tmp_path / "two.hdr")
    assert find(tmp_path / "one.hdr").scenes[0].labels.endswith("one_gt.hdr")


def test_two_files_of_labels_of_one_name_are_refused(tmp_path, labelled_cube):
    for name in ("one", "two"):
        labelled_cube(tmp_path, name=name)
    np.save(tmp_path / "one_labels.npy", np.ones((48, 40), np.uint8))
    with pytest.raises(DatasetError, match=r"one_gt.hdr and .*one_labels.npy are labels of one name"):
        find(tmp_path)


def test_points_label_pixels(tmp_path, labelled_cube):
    labelled_cube(tmp_path, labels=False)
    (tmp_path / "points.csv").write_text("row,col,class\n0,1,wood\n2,3,field\n")
    found = find(tmp_path)
    assert found.classes.names == ("field", "wood")
    assert find(tmp_path / "scene.hdr").scenes == found.scenes
    values = found.map_of(found.scenes[0].labels, scene=0)
    assert (values[0, 1], values[2, 3], (values != 255).sum()) == (1, 0, 2)


def test_the_column_with_the_class_can_be_named(tmp_path, labelled_cube):
    """Of points and of polygons; what the error advises is what helps."""
    labelled_cube(tmp_path, labels=False)
    (tmp_path / "points.csv").write_text("row,col,cover,depth\n0,0,field,3\n5,7,water,4\n")
    with pytest.raises(LabelError, match=r"--set data\.label_field=cover$"):
        find(tmp_path, labels="points.csv")
    for field, names in (("cover", ("field", "water")), ("depth", ("class 3", "class 4"))):
        dataset = find(tmp_path, labels="points.csv", label_field=field)
        assert dataset.classes.names == names
        found = dataset.map_of(str(tmp_path / "points.csv"), scene=0)
        assert (found[0, 0], found[5, 7], (found != 255).sum()) == (0, 1, 2)
    with pytest.raises(LabelError, match="has no attribute 'covr'; nearest: cover"):
        find(tmp_path, labels="points.csv", label_field="covr")


def test_a_folder_with_cubes_is_told_from_one_with_pictures(tmp_path, labelled_cube):
    labelled_cube(tmp_path / "scene")
    (tmp_path / "both").mkdir()
    values, known = labelled_cube(tmp_path / "points", labels=False)
    (tmp_path / "points" / "points.csv").write_text("row,col,class\n0,0,field\n5,7,water\n")
    for name in ("images", "labels"):
        labelled_cube(tmp_path / "pairs" / name, labels=False)
    np.save(tmp_path / "both" / "photo.npy", values.transpose(1, 2, 0)[..., :3])
    np.save(tmp_path / "both" / "photo_gt.npy", known)
    expected = {"scene": True, "points": True, "pairs": True, "both": False, "none": False}
    assert {name: holds_cubes(tmp_path / name) for name in expected} == expected


def test_labels_of_another_size_are_refused(tmp_path, labelled_cube):
    labelled_cube(tmp_path, labels=False)
    np.save(tmp_path / "scene_gt.npy", np.ones((48, 41), np.uint8))
    found = find(tmp_path)
    with pytest.raises(GridMismatch, match=r"scene_gt.npy is 41 x 48 px, its image .*scene.hdr is 40 x 48 px"):
        found.map_of(found.scenes[0].labels, scene=0)


def test_labels_of_zeros_only_are_refused(tmp_path, labelled_cube):
    labelled_cube(tmp_path, labels=False)
    np.save(tmp_path / "scene_gt.npy", np.zeros((48, 40), np.uint8))
    with pytest.raises(LabelError, match="has no labelled pixel"):
        find(tmp_path)


def test_numbers_with_gaps_become_classes_in_order(tmp_path, labelled_cube):
    labelled_cube(tmp_path, labels=False)
    numbers = np.zeros((48, 40), np.int16)
    numbers[0, :3] = [10, 1, 14]
    np.save(tmp_path / "scene_gt.npy", numbers)
    found = find(tmp_path, classes=("x", "y", "z"))
    assert found.coding.values == (1, 10, 14)
    assert found.map_of(found.scenes[0].labels, scene=0)[0, :4].tolist() == [1, 0, 2, 255]
    with pytest.raises(LabelError, match=r"data.classes names 1 classes, the labels have 3"):
        find(tmp_path, classes=("x",))


@pytest.mark.parametrize(("nodata", "names"), [(None, ("class 1", "class 2")), (255, ("class 0", "class 1", "class 2"))])
def test_zero_of_a_geotiff_is_a_class_where_something_else_is_none(tmp_path, labelled_cube, nodata, names):
    labelled_cube(tmp_path, labels=False)
    numbers = np.zeros((1, 48, 40), np.uint8)
    numbers[0, :2, :2] = [[1, 2], [2, 255 if nodata else 1]]
    write_scene(tmp_path / "scene_gt.tif", numbers, grid=CUBE, bands=Bands(names=("class",)), nodata=nodata)
    assert find(tmp_path).classes.names == names


def test_what_is_not_there_is_said(tmp_path, labelled_cube):
    with pytest.raises(MissingFile, match="name a folder with a cube"):
        find(tmp_path / "none")
    with pytest.raises(DatasetError, match="holds no cube"):
        find(tmp_path)
    labelled_cube(tmp_path, labels=False)
    with pytest.raises(MissingFile, match=r"sene.hdr is not there; expected a cube; nearest in that folder: scene.hdr"):
        find(tmp_path, cube="sene.hdr")
    with pytest.raises(DatasetError, match=r"scene.hdr has no labels beside it; .*--set data.labels=FILE"):
        find(tmp_path)


def test_real_scenes_are_found(shared):
    hsi = shared / "data/hsi"
    pines = find(hsi / "indian_pines_subscene")
    assert pines.classes.names == ("Corn-notill", "Grass-trees", "Soybean-notill", "Soybean-mintill")
    assert len(pines.bands) == 200
    salinas = find(hsi / "salinas_a", cube="SalinasA_corrected.mat")
    assert (len(salinas.classes), salinas.coding.values) == (6, (1, 10, 11, 12, 13, 14))

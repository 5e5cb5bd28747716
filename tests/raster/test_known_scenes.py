"""Public scenes: genuine files are recognised, what goes by their name and is something else is refused with a reason."""

import numpy as np
import pytest
import scipy.io

from terralean.errors import LabelError, UnreadableScene
from terralean.raster.known_scenes import (
    COLOURS,
    check_pixels,
    coloured,
    cube_keys,
    known_cube,
    known_labels,
    label_keys,
    published_file,
)
from terralean.raster.label_map import find_labels
from terralean.raster.public_scenes import INDIAN_PINES, INDIAN_PINES_WATER, PUBLIC_SCENES, SALINAS_A, SALINAS_WATER
from terralean.raster.scene import open_scene


def save(folder, key, shape, dtype="uint16"):
    scipy.io.savemat(folder / "a.mat", {key: np.ones(shape, dtype)}, do_compression=True)
    return folder / "a.mat"


def test_the_facts_fit_each_other():
    for scene in PUBLIC_SCENES:
        assert scene.raw_bands is None or scene.bands == scene.raw_bands - len(scene.removed), scene.name
        assert scene.raw_nm is None or len(scene.raw_nm) == scene.raw_bands
        for labels in scene.labels:
            assert len(labels.names) == len(labels.counts) == len(labels.numbers) == len(set(labels.names))
            assert f"{labels.pixels} px" in labels.title
            assert labels.pixels <= scene.rows * scene.cols
    assert len(set(cube_keys())) == len(cube_keys()) and len(set(label_keys())) == len(label_keys())
    assert len(INDIAN_PINES_WATER) == 20 and len(SALINAS_WATER) == 20


def test_colours_stay_apart_for_all_eyes():
    """Distance in CIELAB (1976) as seen with normal sight and without one kind of cones (Machado et al. 2009, severity 1)."""
    sights = [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
    seen = [_lab(_linear(np.array(COLOURS)) @ np.array(sight).T) for sight in sights]
    for count, least in ((10, 24), (16, 20), (24, 15)):
        pairs = [np.linalg.norm(lab[:count, None] - lab[None, :count], axis=-1) for lab in seen]
        assert min(distance[np.triu_indices(count, 1)].min() for distance in pairs) > least
    assert coloured([f"c{i}" for i in range(24)]).colours == COLOURS
    assert len(coloured([f"c{i}" for i in range(25)])) == 25


def _linear(colours):
    part = colours / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def _lab(linear):
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.clip(linear, 0, 1) @ np.array(to_xyz).T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


# Cubes.


@pytest.mark.parametrize("scene", PUBLIC_SCENES, ids=lambda scene: scene.name)
def test_every_scene_is_recognised_by_its_name_and_by_its_size(scene):
    size = {"rows": scene.rows, "cols": scene.cols, "bands": scene.bands}
    for key in scene.keys:
        found = known_cube(key, **size, axes_told=False, path="a.mat")
        assert (found.scene, found.raw, found.by) == (scene, False, "name and size")
    found = known_cube("data", **size, axes_told=False, path="a.mat")
    assert (found.scene, found.by) == (scene, "size")


def test_a_scene_of_another_size_is_none():
    assert known_cube("data", rows=145, cols=145, bands=199, axes_told=False, path="a.mat") is None
    assert known_cube("paviaU", rows=100, cols=100, bands=103, axes_told=False, path="a.mat") is None  # a part, cut out by hand


def test_a_turned_cube_is_refused_with_the_fix(tmp_path):
    path = save(tmp_path, "salinasA_corrected", (86, 83, 204))
    with pytest.raises(
        UnreadableScene, match=r"a\.mat is Salinas-A with its axes in another order, 86 x 83 x 204 for 83 rows x 86"
    ):
        open_scene(path)
    assert open_scene(f"{path}#axes=crb").source.cube.scene.startswith("Salinas-A")
    assert open_scene(f"{path}#known=no").grid.height == 86
    bands_first = save(tmp_path, "salinasA_corrected", (204, 83, 86))
    with pytest.raises(UnreadableScene, match=r"say #axes=brc behind the path"):
        open_scene(bands_first)


def test_raw_bands_under_the_name_of_the_corrected_file_are_refused(tmp_path):
    with pytest.raises(UnreadableScene, match=r"salinasA_corrected has 224 bands, as the raw file of Salinas-A has"):
        open_scene(save(tmp_path, "salinasA_corrected", (83, 86, 224), "uint8"))


def test_principal_components_under_its_name_are_refused(tmp_path):
    path = save(tmp_path, "salinasA_corrected", (83, 86, 30))
    with pytest.raises(
        UnreadableScene, match=r"has 30 bands, Salinas-A has 204 \(raw 224\): it is made of it, principal components"
    ):
        open_scene(path)
    assert len(open_scene(f"{path}#known=no").bands) == 30


def test_the_raw_file_gives_the_bands_of_the_corrected_one(tmp_path):
    scene = open_scene(save(tmp_path, "salinasA", (83, 86, 224), "uint8"))
    assert len(scene.bands) == 204 and scene.source.cube.bad == SALINAS_WATER
    assert scene.source.cube.scene == "Salinas-A (AVIRIS, 1998), all 224 bands, by its name and size"


def test_the_raw_wavelengths_without_water_are_those_of_the_corrected_file():
    raw = known_cube("indian_pines", rows=145, cols=145, bands=220, axes_told=False, path="a.mat")
    used = known_cube("indian_pines_corrected", rows=145, cols=145, bands=200, axes_told=False, path="a.mat")
    kept = tuple(nm for nm, good in zip(raw.wavelength_nm, raw.good, strict=True) if good)
    assert kept == used.wavelength_nm and len(kept) == 200
    assert kept[102:104] == (1352.68, 1412.39)  # bands 103 and 109, round the first gap of water


def test_published_wavelengths_are_those_of_the_publishers_file(shared):
    lines = (shared / "data/hsi/indian_pines_subscene/92AV3C.spc").read_text().splitlines()[2:]
    assert [round(float(line.split()[0]), 2) for line in lines if line.strip()] == list(INDIAN_PINES.raw_nm)


def test_real_cubes_are_recognised(shared):
    part = open_scene(shared / "data/hsi/indian_pines_subscene/Indian_part.mat")
    assert part.source.cube.scene.startswith("Indian Pines, rows 31 to 115") and part.bands.wavelength_nm[0] == 400.02
    assert open_scene(shared / "data/hsi/salinas_a/SalinasA_corrected.hdr").source.cube.scene.endswith("by its size")


# Label maps.


def test_real_label_maps_are_those_that_were_published(shared):
    """Every count of the catalogue that the files at hand can prove."""
    folder = shared / "data/hsi"
    files = [
        path for name in ("Indian_pines", "Salinas", "KSC", "Botswana", "Pavia") for path in folder.rglob(f"{name}_gt.mat")
    ]
    files += [f"{folder / 'label_maps/houston_gt.mat'}#houston_gt_{part}" for part in ("tr", "te")]
    files += [folder / "salinas_a/SalinasA_gt.mat", f"{folder / 'indian_pines_subscene/Indian_part.mat'}"]
    assert len(files) == 9
    for path in files:
        found = find_labels(path)
        assert found.known is not None and found.known.whole, path
        assert found.counts == found.known.labels.counts and found.classes.names == found.known.labels.names
        assert found.coding.ignored == (0,)


def test_both_parts_of_houston_are_the_whole(shared):
    stored = scipy.io.loadmat(shared / "data/hsi/label_maps/houston_gt.mat")
    both = stored["houston_gt_tr"] + stored["houston_gt_te"]  # they have no pixel in common
    counts = dict(zip(*map(np.ndarray.tolist, np.unique(both, return_counts=True)), strict=True))
    known = known_labels(None, size=both.shape, counts=counts, path="a")
    check_pixels(known, both, path="a")
    assert known.labels.pixels == 15029


def test_purdues_map_is_told_from_that_of_upv(shared):
    """The two tifs are the published split of it, in an order of classes of their own."""
    folder = shared / "data/hsi/label_maps"
    parts = [open_scene(folder / f"Indian{part}123_temp123.tif") for part in ("TR", "TE")]
    theirs = sum(part.read(part.grid.window)[0][0].astype(int) for part in parts)
    order = (2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16, 1, 7, 9)
    counts = {order[number - 1]: int((theirs == number).sum()) for number in range(1, 17)}
    found = known_labels(None, size=(145, 145), counts=counts, path="a.mat")
    assert found.labels.title == "the label map of Purdue University, 10366 px"
    with pytest.raises(LabelError, match=r"it is another label map, or numbers its classes otherwise; never mix them") as error:
        known_labels("indian_pines_gt", size=(145, 145), counts=counts | {1: 60}, path="a.mat")
    assert "1: 60 for 46" in str(error.value)


def test_a_map_with_other_numbers_under_its_name_is_refused(shared, tmp_path):
    dase = scipy.io.loadmat(shared / "data/hsi/label_maps/indianpines_disjoint_dset.mat")["indianpines_disjoint_dset"]
    scipy.io.savemat(tmp_path / "a.mat", {"indian_pines_gt": dase})
    with pytest.raises(
        LabelError, match="has 5689 labelled px, the label map of UPV/EHU, 10249 px has 10249, and more than these"
    ):
        find_labels(tmp_path / "a.mat")
    assert len(find_labels(f"{tmp_path / 'a.mat'}#known=no").classes) == 16


def test_a_part_of_a_published_map_keeps_its_classes(shared, tmp_path):
    labels = scipy.io.loadmat(shared / "data/hsi/salinas_a/SalinasA_gt.mat")["salinasA_gt"]
    labels[:40] = 0
    scipy.io.savemat(tmp_path / "a.mat", {"salinasA_gt": labels})
    found = find_labels(tmp_path / "a.mat")
    assert not found.known.whole and found.classes.names == SALINAS_A.labels[0].names
    assert sum(found.counts) == np.count_nonzero(labels)
    assert found.known.words.startswith(f"{np.count_nonzero(labels)} of 5348 px of Salinas-A")


def test_a_turned_label_map_is_refused(shared, tmp_path):
    labels = scipy.io.loadmat(shared / "data/hsi/salinas_a/SalinasA_gt.mat")["salinasA_gt"]
    scipy.io.savemat(tmp_path / "a.mat", {"salinasA_gt": labels.T})
    with pytest.raises(
        LabelError, match=r"is 86 x 83 px, the label map of Salinas-A is 83 x 86: it is transposed; say #axes=crb"
    ):
        find_labels(tmp_path / "a.mat")
    assert find_labels(f"{tmp_path / 'a.mat'}#axes=crb").known.whole


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (np.transpose, r"but elsewhere: it is transposed; say #axes=crb behind the path, or read it as it is with #known=no"),
        (np.flipud, "but elsewhere: it is upside down; take the original file"),
        (np.fliplr, "but elsewhere: it is mirrored"),
        (lambda values: np.roll(values, 1), "but elsewhere: it is another map"),
    ],
)
def test_a_square_map_that_is_turned_has_the_same_counts_and_is_refused(shared, tmp_path, turn, message):
    labels = scipy.io.loadmat(shared / "data/hsi/label_maps/Indian_pines_gt.mat")["indian_pines_gt"]
    scipy.io.savemat(tmp_path / "a.mat", {"indian_pines_gt": turn(labels)})
    with pytest.raises(LabelError, match=message):
        find_labels(tmp_path / "a.mat")
    if turn is np.transpose:
        assert find_labels(f"{tmp_path / 'a.mat'}#axes=crb").known.whole


def test_a_published_file_is_known_byte_for_byte(shared, tmp_path):
    path = shared / "data/hsi/label_maps/Indian_pines_gt.mat"
    assert published_file(path) == "Indian_pines_gt.mat of Indian Pines"
    (tmp_path / "a.mat").write_bytes(path.read_bytes() + b" ")
    assert published_file(tmp_path / "a.mat") is None

"""A broken image among many is named before training; it stops the run unless it may be left out."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terralean.data import scene_check
from terralean.data.scene_check import check_images
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_index import find_scenes
from terralean.errors import BandMismatch, LabelError, SizeError, UnreadableScene


def check(root: Path, progress=None, **settings):
    config = SceneDataConfig(**settings)
    return check_images(find_scenes(root, config), config, progress=progress)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def broken(class_folders, paint):
    """Sixty images, of which one JPEG breaks off."""
    root = class_folders({"field": 30, "water": 29})
    cut(paint("water/cut.jpg", size=(90, 90)))
    return root


def test_a_truncated_image_among_many_is_named_and_the_run_stops(broken):
    with pytest.raises(UnreadableScene) as error:
        check(broken)
    first, second, third = str(error.value).splitlines()
    assert first == f"{broken}: 1 of 60 images cannot be used:"
    assert second.startswith(f"  {broken}/water/cut.jpg breaks off: image file is truncated (")
    assert second.endswith("expected a complete image, copy or download it again")
    assert third == "Mend or remove them, or go on without them: --set data.unreadable=skip"


def test_it_is_left_out_with_a_warning_where_that_is_wanted(broken, caplog):
    with caplog.at_level(logging.WARNING):
        checked = check(broken, unreadable="skip")
    assert checked.left_out == (f"{broken}/water/cut.jpg",)
    assert len(checked.dataset.images) == 59
    assert {image.path for image in checked.dataset.images} == set(checked.seen)
    assert f"{broken}: 1 of 60 images cannot be used:\n  {broken}/water/cut.jpg breaks off" in caplog.text
    assert "They are left out (data.unreadable is skip)." in caplog.text


def test_all_that_are_left_out_are_named(class_folders, caplog):
    root = class_folders({"field": 8, "water": 2})
    for i in range(7):
        (root / "field" / f"field_{i}.png").write_bytes(b"")
    check(root, unreadable="skip")
    assert all(f"field_{i}.png is not an image" in caplog.text for i in range(7))


def test_a_link_that_leads_nowhere_is_named(class_folders):
    root = class_folders({"field": 2, "water": 2})
    (root / "field" / "field_00.png").symlink_to("/gone/field.png")
    expected = r"1 of 5 images cannot be used:\n  .*field_00\.png is a link to /gone/field\.png, which is not there"
    with pytest.raises(UnreadableScene, match=expected):
        check(root)
    assert len(check(root, unreadable="skip").dataset.images) == 4


def test_of_many_broken_images_five_are_named_and_all_counted(class_folders):
    root = class_folders({"field": 8, "water": 2})
    for i in range(7):
        (root / "field" / f"field_{i}.png").write_bytes(b"")
    with pytest.raises(UnreadableScene, match=r"7 of 10 images cannot be used") as error:
        check(root)
    assert "field_4.png is not an image" in str(error.value)
    assert "field_5.png" not in str(error.value)
    assert "\n  and 2 more\n" in str(error.value)


def test_a_class_that_is_left_without_images_stops_the_run(class_folders):
    root = class_folders({"field": 2, "water": 1})
    (root / "water" / "water_0.png").write_bytes(b"")
    with pytest.raises(LabelError, match="without the images that cannot be used there is none of water; mend some"):
        check(root, unreadable="skip")


@pytest.mark.parametrize(("size", "told"), [((1, 1), "1 x 1"), ((200, 15), "200 x 15"), ((15, 200), "15 x 200")])
def test_images_that_are_too_thin(class_folders, paint, size, told):
    root = class_folders({"field": 2, "water": 2})
    path = paint("field/thin.png", size=size)
    expected = f"{path} is {told} px (width, height); expected 16 px or more along both (data.least_px)"
    with pytest.raises(SizeError) as error:
        check(root)
    assert expected in str(error.value)
    assert len(check(root, unreadable="skip").dataset.images) == 4
    if min(size) > 1:
        assert len(check(root, least_px=15).dataset.images) == 5


def test_an_image_without_a_valid_pixel(class_folders):
    root = class_folders({"field": 2, "water": 2})
    Image.fromarray(np.zeros((20, 20, 4), np.uint8)).save(root / "field" / "clear.png")
    with pytest.raises(UnreadableScene, match=r"clear.png has no valid pixel: all are nodata, masked or transparent"):
        check(root)


def test_an_image_that_has_gone_since(class_folders):
    root = class_folders({"field": 2, "water": 2})
    dataset = find_scenes(root, SceneDataConfig())
    (root / "field" / "field_1.png").unlink()
    with pytest.raises(UnreadableScene, match=r"1 of 4 images cannot be used:\n  .*field_1\.png is not there"):
        check_images(dataset, SceneDataConfig())


def test_tiles_without_a_place_are_not_worth_a_warning_each(tmp_path, paint, recwarn):
    for i in range(40):
        paint(f"{'ab'[i % 2]}/{i}.tif")
    check(tmp_path)
    assert not [warning for warning in recwarn if "geo" in str(warning.message)]


def test_grey_images_among_coloured_ones(class_folders, paint):
    root = class_folders({"field": 3, "water": 3})
    paint("field/grey.png", mode="L")
    with pytest.raises(BandMismatch) as error:
        check(root)
    assert str(error.value) == (
        f"{root}: images of one dataset must be of one kind\n"
        "  3 x uint8 (red, green, blue), digital number in steps of 1: 6 images\n"
        "  1 x uint8 (band_1), digital number in steps of 1: 1 image, field/grey.png\n"
        "read grey ones as colour with --set data.colour=rgb, or convert them"
    )
    assert len(check(root, colour="rgb").dataset.images) == 7


def test_the_odd_image_is_named_even_if_it_comes_first(class_folders, paint):
    root = class_folders({"field": 3, "water": 3})
    paint("field/a.png", mode="L")
    with pytest.raises(BandMismatch, match=r"1 image, field/a\.png"):
        check(root)


def test_grey_images_alone_are_fine(paint, tmp_path):
    for name in ("a/1.png", "a/2.tif", "b/1.jpg"):
        paint(name, mode="L")
    assert len(check(tmp_path).dataset.bands) == 1


def test_sixteen_bits_among_eight(class_folders, write_image):
    root = class_folders({"field": 3, "water": 3})
    write_image("water/deep.tif", np.arange(1200, dtype=np.uint16).reshape(3, 20, 20), photometric="RGB")
    with pytest.raises(BandMismatch) as error:
        check(root, unreadable="skip")
    assert "3 x uint16 (red, green, blue), digital number in steps of 1: 1 image, water/deep.tif" in str(error.value)
    assert str(error.value).endswith("convert or remove the odd ones, or choose common bands with data.bands")


def test_cmyk_among_others(class_folders, paint):
    root = class_folders({"field": 3, "water": 3})
    path = paint("water/print.jpg", mode="CMYK")
    with pytest.raises(BandMismatch, match=rf"1 of 7 images cannot be used:\n  {path} is stored as CMYK"):
        check(root)
    assert len(check(root, colour="rgb").dataset.images) == 7


def test_what_is_seen_tells_pixels_apart(class_folders, paint):
    root = class_folders({"field": 2, "water": 2})
    same = (paint("field/x.png", seed=5), paint("water/y.bmp", seed=5), paint("field/z.tif", seed=5))
    other = paint("field/w.png", seed=5, mode="P")
    seen = check(root).seen
    assert len({seen[str(path)].digest for path in same}) == 1
    assert len({found.digest for found in seen.values()}) == 6
    assert seen[str(other)].digest != seen[str(same[0])].digest
    assert (seen[str(other)].height, seen[str(other)].width) == (20, 24)


def test_the_same_pixels_under_two_classes_are_warned_of(class_folders, paint, caplog):
    root = class_folders({"field": 2, "water": 2})
    paint("field/x.png", seed=5)
    paint("water/y.png", seed=5)
    paint("water/z.png", seed=5)
    check(root)
    assert "2 images with the very pixels of one of another class, " in caplog.text
    assert f"{root}/water/y.png (water) and {root}/field/x.png (field) for one; one of the two labels is wrong" in caplog.text


def test_large_files_are_streamed_to_the_same_end(class_folders, paint, monkeypatch):
    root = class_folders({"field": 3, "water": 3})
    for i in range(3):
        paint(f"water/{i}.tif", size=(300, 200))
    small = check(root)
    monkeypatch.setattr(scene_check, "SMALL_BYTES", 0)
    assert check(root).seen == small.seen
    monkeypatch.setattr(scene_check, "STRIP_PX", 1000)
    in_strips = check(root)
    assert [(found.height, found.width) for found in in_strips.seen.values()] == [
        (found.height, found.width) for found in small.seen.values()
    ]
    cut(root / "water" / "1.tif")
    with pytest.raises(UnreadableScene, match=r"1 of 9 images cannot be used:\n.*water/1\.tif"):
        check(root)


def test_progress_and_side(class_folders, paint, monkeypatch):
    monkeypatch.setattr(scene_check, "AT_ONCE", 4)
    root = class_folders({"field": 4, "water": 4})
    for i in range(3):
        paint(f"water/{i}.png", size=(90, 70))
    told = []
    checked = check(root, progress=lambda done, total: told.append((done, total)))
    assert told == [(4, 11), (8, 11), (11, 11)]
    assert checked.side_px == 20

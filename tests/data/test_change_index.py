import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terralean.data.change_config import PairConfig
from terralean.data.change_index import find_pairs, holds_pairs
from terralean.data.config import DataConfig
from terralean.data.crops import Tiles
from terralean.data.split import Region, load_split, make_split, save_split
from terralean.errors import ConfigError, DatasetError, GridMismatch, LabelError, MissingFile
from terralean.raster.grid import Window
from terralean.raster.scene import open_scene

SIDE = 16


def picture(start: int) -> np.ndarray:
    return (np.arange(start, start + SIDE * SIDE * 3) % 251).astype(np.uint8).reshape(SIDE, SIDE, 3)


def mask(full: int = 255) -> np.ndarray:
    out = np.zeros((SIDE, SIDE), np.uint8)
    out[2:6, 3:9] = full
    return out


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write(root: Path, name: str, *, folders=("A", "B", "label"), full: int = 255, number: int = 0) -> None:
    for folder, array in zip(folders, (picture(number), picture(number + 9), mask(full)), strict=True):
        save(root / folder / f"{name}.png", array)


def found(root: Path, pairs: PairConfig | None = None, **settings):
    return find_pairs(root, DataConfig(**settings), PairConfig() if pairs is None else pairs)


def told(dataset) -> list[tuple[str, str, str, str | None]]:
    """Dates, mask and split of each pair, by path from the root."""
    out = []
    for source in dataset.sources:
        parts = [*source.image.split(":"), source.label]
        out.append((*(str(Path(part).relative_to(dataset.root)) for part in parts), source.split))
    return out


def test_two_dates_and_masks_are_paired_by_name(tmp_path):
    for number, name in enumerate("xy"):
        write(tmp_path, name, number=number)
    dataset = found(tmp_path)
    assert told(dataset) == [(f"A/{n}.png", f"B/{n}.png", f"label/{n}.png", None) for n in "xy"]
    assert dataset.classes.names == ("unchanged", "changed")
    assert dataset.bands.names[:2] == ("red before", "green before")
    assert holds_pairs(tmp_path)


@pytest.mark.parametrize("masks", ["OUT", "label"])
def test_published_sets_have_a_folder_for_each_split(tmp_path, masks):
    for split in ("train", "val", "test"):
        write(tmp_path / split, split[0], folders=("A", "B", masks))
    assert told(found(tmp_path)) == [
        (f"{s}/A/{s[0]}.png", f"{s}/B/{s[0]}.png", f"{s}/{masks}/{s[0]}.png", "validation" if s == "val" else s)
        for s in ("test", "train", "val")
    ]


def test_lists_beside_the_folders_give_the_split(tmp_path):
    for name in "xyz":
        write(tmp_path, name)
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "train.txt").write_text("x.png\n")
    (tmp_path / "list" / "test.txt").write_text("z.png\n\n")
    assert [(pair[0], pair[3]) for pair in told(found(tmp_path))] == [("A/x.png", "train"), ("A/z.png", "test")]
    (tmp_path / "list" / "val.txt").write_text("w.png\n")
    with pytest.raises(MissingFile, match="list names pairs that are not there: w"):
        found(tmp_path)


def test_an_index_names_pairs_splits_and_groups(tmp_path):
    write(tmp_path, "x")
    rows = ["before,after,label,split,group", "A/x.png,B/x.png,label/x.png,val,north"]
    (tmp_path / "index.csv").write_text("\n".join(rows))
    dataset = found(tmp_path)
    assert told(dataset) == [("A/x.png", "B/x.png", "label/x.png", "validation")]
    assert dataset.sources[0].group == "north"
    (tmp_path / "index.csv").write_text(rows[0] + "\nA/x.png,B/gone.png,label/x.png,val,north\n")
    with pytest.raises(MissingFile, match=r"row 2 after 'B/gone.png'"):
        found(tmp_path)
    (tmp_path / "index.csv").write_text("after,label\nB/x.png,label/x.png\n")
    with pytest.raises(DatasetError, match="no column before"):
        found(tmp_path)


def test_a_pair_with_a_missing_file_is_refused(tmp_path):
    for name in "xy":
        write(tmp_path, name)
    (tmp_path / "B" / "y.png").unlink()
    with pytest.raises(MissingFile, match=r"pairs lack files: B/y\.\*"):
        found(tmp_path)
    shutil.rmtree(tmp_path / "label")
    with pytest.raises(DatasetError, match="both dates but no masks"):
        found(tmp_path)
    with pytest.raises(DatasetError, match="holds no pairs of dates but nothing"):
        found(_empty(tmp_path))


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_dates_of_another_size_are_refused(tmp_path):
    write(tmp_path, "x")
    save(tmp_path / "B" / "x.png", picture(0)[:10])
    with pytest.raises(GridMismatch, match=r"B/x\.png is 16 x 10 px"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("fulls", "above", "values"), [((255, 255), 128, None), ((1, 1), 1, None)], ids=["0 and 255", "0 and 1"]
)
def test_change_is_the_upper_of_two_values(tmp_path, fulls, above, values):
    for number, full in enumerate(fulls):
        write(tmp_path, f"x{number}", full=full)
    dataset = found(tmp_path)
    assert (dataset.coding.above, dataset.coding.values) == (above, values)
    tiles = _tiles(dataset)
    assert np.array_equal(tiles[0]["mask"].numpy(), mask(1))


def test_255_beside_1_is_ignored(tmp_path):
    write(tmp_path, "x", full=1)
    both = mask(1)
    both[10:] = 255
    save(tmp_path / "label" / "x.png", both)
    assert np.array_equal(_tiles(found(tmp_path))[0]["mask"].numpy(), both)


def test_other_values_than_two_are_refused_unless_told(tmp_path):
    write(tmp_path, "x")
    smeared = mask()
    smeared[2, 3:9] = (254, 200, 128, 127, 90, 3)
    save(tmp_path / "label" / "x.png", smeared)
    with pytest.raises(LabelError, match=r"label/x\.png holds 3 \(1 px\), 90 .*two values.*pairs\.mask=threshold"):
        found(tmp_path)
    for rule, expected in (("threshold", smeared >= 128), ("truncation", smeared == 255)):
        changed = _tiles(found(tmp_path, PairConfig(mask=rule)))[0]["mask"].numpy()
        assert np.array_equal(changed, expected), rule
    low = _tiles(found(tmp_path, PairConfig(mask="threshold", mask_threshold=90)))[0]["mask"].numpy()
    assert np.array_equal(low, smeared >= 90)
    with pytest.raises(ConfigError, match="mask_threshold is 1 to 255, got 0"):
        PairConfig(mask_threshold=0)


def test_masks_written_in_two_ways_are_refused(tmp_path):
    write(tmp_path, "x", full=1)
    write(tmp_path, "y", full=255)
    with pytest.raises(LabelError, match=r"x\.png writes change as 1 and .*y\.png as 255"):
        found(tmp_path)


def test_jpeg_masks_are_thresholded(tmp_path):
    write(tmp_path, "x")
    (tmp_path / "label" / "x.png").unlink()
    save(tmp_path / "label" / "x.jpg", np.kron(mask()[::2, ::2], np.ones((2, 2), np.uint8)))
    assert found(tmp_path).coding.above == 128


def test_a_picture_is_no_mask(tmp_path):
    write(tmp_path, "x")
    save(tmp_path / "label" / "x.png", picture(0))
    with pytest.raises(LabelError, match="a picture in colours"):
        found(tmp_path)


def test_a_split_of_pairs_is_read_back_where_the_data_have_moved(tmp_path):
    for number in range(6):
        write(tmp_path / "data", f"x{number}", number=40 * number)
    config = DataConfig(tile_px=16)
    split = make_split(found(tmp_path / "data"), config, seed=0)
    save_split(split, tmp_path / "split.json")
    (tmp_path / "data").rename(tmp_path / "moved")
    again = load_split(tmp_path / "split.json", root=tmp_path / "moved")
    assert {region.split for region in again.regions} == {"train", "validation", "test"}
    for region, before in zip(again.regions, split.regions, strict=True):
        assert region.image == before.image.replace(str(tmp_path / "data"), str(tmp_path / "moved"))
        assert all(Path(date).is_file() for date in region.image.split(":"))
    assert again.coding == split.coding


@pytest.mark.parametrize(
    ("name", "pairs", "bands"),
    [("levir_cd_samples", 7, 6), ("dsifn_samples", 6, 6), ("sztaki_airchange", 2, 6), ("landsat_taizhou", 1, 12)],
)
def test_published_pairs_are_read(shared, name, pairs, bands):
    dataset = found(shared / "data" / "rgb" / "cd" / name)
    assert (len(dataset.sources), len(dataset.bands)) == (pairs, bands)
    assert dataset.coding.above == 128
    with open_scene(dataset.sources[0].image) as scene:
        values, valid = scene.read(scene.grid.window)
        assert scene.grid.crs == ("EPSG:32651" if name == "landsat_taizhou" else None)
    assert valid.any()
    assert (values[: bands // 2] != values[bands // 2 :]).any()


def test_dates_a_row_apart_are_refused_or_resampled(shared):
    folder = shared / "data" / "rgb" / "raster" / "opengeos"
    before, after = sorted(folder.glob("m_4709963_*.tif"))
    with pytest.raises(GridMismatch, match="lie on different grids"):
        open_scene(f"{before}:{after}")
    with open_scene(f"{before}:{after}#resample") as scene:
        values, valid = scene.read(scene.grid.window)
        first, _ = open_scene(before).read(scene.grid.window)
    assert np.array_equal(values[:4], first)
    assert valid.mean() > 0.9


def _tiles(dataset) -> Tiles:
    window = Window(row=0, col=0, height=SIDE, width=SIDE)
    regions = [Region(image=s.image, label=s.label, window=window, split="train") for s in dataset.sources]
    return Tiles(regions, classes=dataset.classes, coding=dataset.coding, config=DataConfig(tile_px=SIDE))

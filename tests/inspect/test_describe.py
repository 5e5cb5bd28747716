"""Any path is told apart, and told in words."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from terralean.data.config import DataConfig
from terralean.errors import MissingFile, RunError, UnreadableScene
from terralean.inspect.describe import describe
from terralean.inspect.words import tell

IMAGE = np.random.default_rng(1).integers(1, 250, (3, 40, 40), dtype=np.uint8)


def test_a_file_is_a_scene_and_a_folder_a_dataset(make_dataset, write_image):
    folder = make_dataset(3)
    assert describe(str(folder)).kind == "dataset"
    assert describe(str(folder / "images" / "i0.tif")).kind == "scene"


def test_a_scene_with_labels_named_is_a_dataset(write_image):
    scene = write_image("a.tif", IMAGE)
    write_image("truth.tif", (np.arange(1600).reshape(40, 40) % 2).astype(np.uint8))
    report = describe(scene, config=DataConfig(labels="truth.tif"))
    assert report.kind == "dataset"
    assert report.layout == "one scene, a.tif, and truth.tif"


def test_a_folder_with_a_card_is_a_run(tmp_path):
    (tmp_path / "card.json").write_text("{}")
    assert describe(str(tmp_path)).kind == "run"


def test_a_folder_of_several_seeds_says_to_name_one(tmp_path):
    for seed in (0, 1):
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}" / "card.json").write_text("{}")
    with pytest.raises(RunError, match=r"holds 2 runs that differ in their seed; name one of them, e\.g\. .*seed0$"):
        describe(str(tmp_path))


def test_what_is_not_there_or_no_image_raises(tmp_path):
    with pytest.raises(MissingFile, match=r"none\.tif is not there; expected a scene, a folder of images and labels, a pair"):
        describe(str(tmp_path / "none.tif"))
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(UnreadableScene, match=r"notes\.txt is not an image that GDAL can open"):
        describe(str(tmp_path / "notes.txt"))


def test_a_scene_in_words(write_image):
    values = IMAGE.copy()
    values[:, :10] = 0
    text = tell(describe(write_image("a.tif", values, crs=None, nodata=0, compress="lzw"))).splitlines()
    assert text[0].endswith("a.tif: scene, GTiff")
    assert "  size        40 x 40 px (width x height)" in text
    assert "  bands       3 x uint8 (red, green, blue), digital number in steps of 1" in text
    assert "  nodata      25.0% of the pixels in view (value 0)" in text
    assert "  on disk     blocks of 40 x 40 px (height x width), LZW, no overviews" in text
    assert text[-2] == "warning: it has no CRS: a map of it will lie nowhere on the ground"
    assert text[-1].startswith("  fix: if you know it: gdal_edit.py -a_srs EPSG:CODE")


def test_a_dataset_in_words(make_dataset):
    text = tell(describe(str(make_dataset()))).splitlines()
    assert "dataset, images/ and labels/ paired by file name, 10 pairs, no split given" in text[0]
    assert "  images      10, 40 x 40 px (width x height)" in text
    assert "  class       class 0: 50.00% of the labels, 8,000 px" in text
    assert "  split       whole images: 6 train, 2 validation, 2 test" in text


def test_real_datasets_in_json_and_words(shared):
    for name in ("gsi_roads", "s2_india_rgbn"):
        report = describe(str(shared / "data/rgb/seg" / name))
        json.dumps(asdict(report), allow_nan=False)
        assert [finding.severity for finding in report.findings] == ["note"]
        assert "no leak found" in tell(report)

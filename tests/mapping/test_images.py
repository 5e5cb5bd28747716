"""Whole images to classes: what is seen of them, the table, and images that cannot be used."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_crops import SceneViews
from terralean.data.scene_index import SceneImage
from terralean.data.scene_reading import SceneFiles
from terralean.errors import BandMismatch, ConfigError, DatasetError, MissingFile, OutputFailed, SizeError, UnreadableScene
from terralean.mapping.images import ClassifyConfig, classify, find_images
from terralean.models import create
from terralean.predict import Predictor, load
from terralean.predict.normalise import Normalise
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands
from terralean.tasks.classification import mean_view

COLOURS = {"field": (180, 120, 130), "forest": (100, 210, 120), "water <&>": (90, 80, 240)}
AS_STORED = SceneDataConfig(size_px=32, resize_px=32)


@pytest.fixture(scope="module")
def predictor(recogniser):
    return load(recogniser, device="cpu")


@pytest.fixture(scope="module")
def drawn(predictor):
    """A network of random weights."""
    torch.manual_seed(0)
    model = create("small_cnn", bands=3, classes=3, width=8)
    torch.nn.init.normal_(model.head.weight, std=3)
    return Predictor(model, predictor.card, device=torch.device("cpu"), precision="fp32")


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def plain(colour, height=40, width=40):
    return np.full((height, width, 3), colour, np.uint8)


def smooth(height, width, seed):
    small = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (1, 3, height // 8, width // 8)))
    large = torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear")
    return large[0].permute(1, 2, 0).numpy().astype(np.uint8)


def probabilities(colour):
    """What the fixture's network says of an image of one colour."""
    scores = np.exp(np.maximum(np.array(colour) - (100, 110, 120), 0) / (40, 50, 60))
    return scores / scores.sum()


def test_each_image_gets_its_likeliest_classes_in_order(predictor, tmp_path):
    paths = [save(tmp_path / f"{i}.png", plain(colour)) for i, colour in enumerate(COLOURS.values())]
    told = []
    result = classify(
        predictor, paths, config=ClassifyConfig(top=2), data=AS_STORED, progress=lambda done, total: told.append((done, total))
    )
    assert [image.path for image in result.images] == [str(path) for path in paths]
    for image, (name, colour) in zip(result.images, COLOURS.items(), strict=True):
        expected = probabilities(colour)
        order = np.argsort(-expected)[:2]
        assert image.likeliest[0].name == name
        assert [likely.name for likely in image.likeliest] == [predictor.card.classes.names[i] for i in order]
        assert [likely.probability for likely in image.likeliest] == pytest.approx(expected[order], abs=1e-5)
    assert (result.failed, result.table) == ({}, None)
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("views", "batch"), [("centre", 3), ("many", 5)])
def test_images_are_seen_as_they_are_judged_in_training(drawn, tmp_path, views, batch):
    sizes = [(40, 64), (96, 64), (200, 72), (64, 64)]
    paths = [str(save(tmp_path / f"{i}.png", smooth(*size, seed=i))) for i, size in enumerate(sizes)]
    data = SceneDataConfig(size_px=32, resize_px=40, views=views, most_views=8)
    result = classify(drawn, paths, config=ClassifyConfig(top=3, batch=batch), data=data)
    card, normalise = drawn.card, Normalise(drawn.card.normalisation)
    files = SceneFiles([SceneImage(path=p, label=0) for p in paths], bands=card.bands, classes=card.classes, config=data)
    for image, sample in zip(result.images, SceneViews(files, config=data), strict=True):
        with torch.inference_mode():
            logits = drawn.model(normalise(sample["image"], sample["valid"]))
        expected = mean_view(logits, views=len(logits))[0]
        found = {likely.name: likely.probability for likely in image.likeliest}
        assert [found[name] for name in card.classes.names] == pytest.approx(expected.tolist(), abs=1e-5)
        assert image.views == len(logits)
    assert (max(image.views for image in result.images) > 1) == (views == "many")


def test_without_a_recipe_the_centre_is_seen_as_is_usual(drawn, tmp_path):
    path = save(tmp_path / "a.png", smooth(96, 64, seed=5))
    usual = SceneDataConfig(size_px=32, resize_px=37)  # 32 x 256 / 224
    one, other = (classify(drawn, [path], config=ClassifyConfig(), data=data).images for data in (None, usual))
    assert one == other
    assert one != classify(drawn, [path], config=ClassifyConfig(), data=AS_STORED).images


def test_folders_are_searched_at_any_depth_and_each_image_counts_once(tmp_path):
    for name in ("b/2.png", "b/inner/1.jpg", "a.tif.png", ".hidden/3.png", "b/.4.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = [str(tmp_path / name) for name in ("a.tif.png", "b/2.png", "b/inner/1.jpg")]
    assert find_images([tmp_path]) == expected
    assert find_images([tmp_path / "b" / "2.png", tmp_path]) == [expected[1], expected[0], expected[2]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty holds no image, but nothing; give images, or folders of them"):
        find_images([tmp_path / "empty"])


def test_the_table(predictor, tmp_path):
    paths = [save(tmp_path / f"{i}, a.png", plain(colour)) for i, colour in enumerate(COLOURS.values())]
    table = tmp_path / "out" / "table.csv"
    result = classify(predictor, paths, config=ClassifyConfig(), data=AS_STORED, out=table)
    assert result.table == str(table)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "class", "confidence", "class_2", "confidence_2", "class_3", "confidence_3"]
    assert [row[:2] for row in rows[1:]] == [[str(path), name] for path, name in zip(paths, COLOURS, strict=True)]
    assert [float(row[2]) for row in rows[1:]] == pytest.approx([probabilities(c).max() for c in COLOURS.values()], abs=1e-4)
    with pytest.raises(OutputFailed, match=r"table\.csv exists; delete it, choose another folder, or say --overwrite"):
        classify(predictor, paths[:1], config=ClassifyConfig(), data=AS_STORED, out=table)
    classify(predictor, paths[:1], config=ClassifyConfig(top=1, overwrite=True), data=AS_STORED, out=table)
    assert table.read_text().splitlines()[0] == "path,class,confidence"
    assert [path.name for path in table.parent.iterdir()] == ["table.csv"]


def test_images_that_cannot_be_used_are_named_and_the_others_done(predictor, tmp_path):
    good = [save(tmp_path / name, plain(COLOURS["forest"])) for name in ("a.png", "z.png")]
    broken = tmp_path / "b.jpg"
    save(broken, smooth(80, 80, seed=1))
    broken.write_bytes(broken.read_bytes()[:-300])
    save(tmp_path / "c.png", plain((1, 2, 3), 1, 1))
    save(tmp_path / "d.png", plain((1, 2, 3))[..., 0])
    (tmp_path / "e.png").write_text("no image")
    save(tmp_path / "f.png", np.zeros((40, 40, 4), np.uint8))
    table = tmp_path / "out" / "table.csv"
    result = classify(predictor, [tmp_path, tmp_path / "gone.png"], config=ClassifyConfig(batch=2), data=AS_STORED, out=table)
    assert [image.path for image in result.images] == [str(path) for path in good]
    words = {path.rsplit("/", 1)[1]: message for path, message in result.failed.items()}
    assert [*words] == ["b.jpg", "c.png", "d.png", "e.png", "f.png", "gone.png"]
    assert "b.jpg breaks off" in words["b.jpg"]
    assert "c.png is 1 x 1 px (width, height); the model was trained on images of 16 px or more" in words["c.png"]
    assert "d.png: 1 band, the model was trained on 3" in words["d.png"]
    assert "e.png" in words["e.png"]
    assert "f.png has no valid pixel: all are nodata, masked or transparent" in words["f.png"]
    assert "gone.png is not there; expected an image or a folder of images" in words["gone.png"]
    assert len(table.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [
        ("tiny.png", plain((1, 2, 3), 1, 1), SizeError),
        ("clear.png", np.zeros((40, 40, 4), np.uint8), UnreadableScene),
        ("grey.png", plain((1, 2, 3))[..., 0], BandMismatch),
        ("gone.png", None, MissingFile),
    ],
)
def test_a_single_images_mistake_is_raised_and_leaves_no_table(predictor, tmp_path, name, values, error):
    if values is not None:
        save(tmp_path / name, values)
    with pytest.raises(error, match=name):
        classify(predictor, [tmp_path / name], config=ClassifyConfig(), data=AS_STORED, out=tmp_path / "out" / "table.csv")
    assert not (tmp_path / "out").exists()


def test_images_of_other_bands_show_both_lists(predictor, tmp_path):
    for i in range(3):
        bands = Bands(names=("B02", "B03", "B04", "B08"))
        grid = Grid(width=40, height=40, crs=None)
        write_scene(tmp_path / f"{i}.tif", np.full((4, 40, 40), 200, np.uint8), grid=grid, bands=bands)
    with pytest.raises(BandMismatch, match=r"scene: B02, B03, B04, B08\n  model: red, green, blue"):
        classify(predictor, [tmp_path], config=ClassifyConfig(), data=AS_STORED)
    result = classify(predictor, [tmp_path], config=ClassifyConfig(bands=(3, 2, 1)), data=AS_STORED)
    assert len(result.images) == 3


def test_bands_are_picked_by_position(predictor, tmp_path):
    bands = Bands(names=("B02", "B03", "B04", "B08"))
    values = np.stack([np.full((40, 40), v, np.uint8) for v in (240, 80, 90, 7)])  # blue, green, red, near infrared
    write_scene(tmp_path / "a.tif", values, grid=Grid(width=40, height=40, crs=None), bands=bands)
    result = classify(predictor, [tmp_path / "a.tif"], config=ClassifyConfig(bands=(3, 2, 1)), data=AS_STORED)
    assert result.images[0].likeliest[0].name == "water <&>"
    in_training = replace(AS_STORED, bands=(3, 2, 1))
    with pytest.raises(BandMismatch, match="none of the model's bands"):  # the recipe's positions do not excuse other names
        classify(predictor, [tmp_path / "a.tif"], config=ClassifyConfig(), data=in_training)


def test_values_of_16_bits_are_not_those_of_8(predictor, tmp_path):
    grid, bands = Grid(width=40, height=40, crs=None), Bands(names=("red", "green", "blue"), dtype="uint16")
    write_scene(tmp_path / "a.tif", np.full((3, 40, 40), 2000, np.uint16), grid=grid, bands=bands)
    with pytest.raises(BandMismatch, match=r"a\.tif holds uint16 values, the model was trained on uint8; convert it"):
        classify(predictor, [tmp_path / "a.tif"], config=ClassifyConfig(), data=AS_STORED)


def test_a_model_of_pixels_is_refused(untrained, tmp_path):
    with pytest.raises(ConfigError, match=r"lemevit_tiny_light was trained for segmentation, .* use terralean map"):
        classify(load(untrained, device="cpu"), [tmp_path], config=ClassifyConfig())


@pytest.mark.parametrize(("name", "words"), [("top", "top must be at least 1 class, got 0"), ("batch", "at least 1 view")])
def test_settings_are_checked(name, words):
    with pytest.raises(ConfigError, match=words):
        ClassifyConfig(**{name: 0})

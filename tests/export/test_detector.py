"""A detector as two graphs: they find what the network finds, in every runtime, and take its place in maps."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pyogrio
import pystac
import pytest
import torch

from terralean import __version__
from terralean.boxes.detected import Detected
from terralean.boxes.two_looks import Suppression
from terralean.data.oriented.config import DetectionDataConfig
from terralean.data.oriented.dota import write_labels
from terralean.data.oriented.layouts import find_objects
from terralean.data.oriented.split import deal_objects, save_objects_split
from terralean.errors import ConfigError, ExportDiffers, RunError, SizeError
from terralean.export.compare import check_found, compare_found
from terralean.export.config import BoxesLimit, BoxesLimits, ExportConfig
from terralean.export.run import export_run
from terralean.export.timm_folder import export_timm
from terralean.models import create
from terralean.predict import load
from terralean.predict.artefact import MAPS, read_artefact
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands, Classes, Normalisation
from terralean.weights.card import Card, Training
from terralean.weights.checkpoint import load_checkpoint, save_checkpoint

SIDE, NAMES = 96, ("boat", "car")
SIZES = {"backbone": "test_resnet", "width": 16, "hidden": 32, "proposals": 60, "iou": 0.5}
DATA = DetectionDataConfig(tile_px=SIDE, overlap_px=24)
NEAR = BoxesLimit(overlap=0.98, same=0.98, difference=1e-3)
BANDS = Bands(names=("red", "green", "blue"))
FORMATS = ["onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in ("openvino", "torch"))]


def read_data(run: Path):
    return DATA


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> Path:
    """Two images to train and one to test on: squares of noise on noise."""
    root = tmp_path_factory.mktemp("objects")
    for number, split in enumerate(("train", "train", "test")):
        rng = np.random.default_rng(number)
        values = rng.integers(0, 60, (3, 150, 170))
        values[:, 20:60, 30:80] += rng.integers(60, 180, (3, 1, 1))
        for name in ("images", "labelTxt"):
            (root / split / name).mkdir(parents=True, exist_ok=True)
        grid = Grid(width=170, height=150, crs="EPSG:32633", transform=(0.5, 0, 5e5 + 1000 * number, 0, -0.5, 5e6))
        write_scene(root / split / "images" / f"{number}.tif", values.astype(np.uint8), grid=grid, bands=BANDS, nodata=None)
        corners = np.array([[30.0, 20, 80, 20, 80, 60, 30, 60], [10.0, 70, 40, 70, 40, 90, 10, 90]])
        write_labels(root / split / "labelTxt" / f"{number}.txt", corners, NAMES, np.zeros(2, np.uint8))
    return root


@pytest.fixture(scope="module")
def run(objects, tmp_path_factory) -> Path:
    """A detector with random weights that is sure of many things, and how its data were dealt."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = create("orcnn", bands=3, classes=2, **SIZES)
    with torch.no_grad():
        for part, std in ((model.rpn.score, 0.5), (model.rpn.offset, 0.3), (model.roi.classify, 2.0), (model.roi.regress, 0.2)):
            torch.nn.init.normal_(part.weight, std=std)
        model.roi.classify.bias[-1] = -4.0  # seldom none of the classes
    told = Card(
        version=__version__,
        task="detection",
        model="orcnn",
        sizes=SIZES,
        bands=BANDS,
        normalisation=Normalisation(mean=(40.0, 41.0, 42.0), std=(30.0, 31.0, 32.0)),
        classes=Classes.named(NAMES),
        tile_px=SIDE,
        overlap_px=24,
        training=Training(data="0" * 16, images=2, split="as given", leakage="none", steps=0, minutes=0.0, seed=0),
    )
    save_checkpoint(model.eval(), told, folder)
    save_objects_split(deal_objects(find_objects(objects, DATA), DATA, seed=0), folder / "split.json")
    (folder / "recipe.yaml").write_text("task: detection\n")
    return folder


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """The exported detector in a format, written once; do not change it."""
    made: dict[str, Path] = {}

    def written(format_: str) -> Path:
        if format_ not in made:
            made[format_] = tmp_path_factory.mktemp("out") / format_
            export_run(run, made[format_], config=ExportConfig(format=format_, checked_tiles=2), read=read_data)
        return made[format_]

    return written


def pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    image = torch.randint(0, 255, (count, 3, SIDE, SIDE), generator=generator).float()
    return image, torch.rand(count, SIDE, SIDE, generator=generator) > 0.1


@pytest.fixture(scope="module")
def network(run):
    return load(run, device="cpu")


@pytest.fixture(scope="module")
def graphs(folder):
    """The exported detector in a format, opened once."""
    return cache(lambda format_: load(folder(format_), device="cpu"))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("count", [1, 3])
def test_graphs_find_what_the_network_finds(network, graphs, format_, count):
    found, expected = (predictor.detect(*pictures(count)) for predictor in (graphs(format_), network))
    assert [one.boxes.dtype for one in found] == [torch.float32] * count
    agreement = compare_found(found, expected, source="noise", score=0.05, limit=NEAR)
    check_found(agreement, NEAR, what=format_)
    assert agreement.objects >= 4 * count


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_any_number_of_proposals_is_looked_at(network, graphs, format_, count):
    model = network.model
    with torch.inference_mode():
        proposed = model.propose(network.seen(*pictures(1)))
        boxes = torch.rand(count, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([90.0, 90, 40, 20, 1]) + 1
        maps = [values.contiguous() for values in proposed.maps[: len(MAPS)]]
        probabilities, meant = model.judge(maps, boxes, torch.zeros(count, dtype=torch.int64))
        found = graphs(format_).runtime.judged(boxes, maps)
    torch.testing.assert_close(found[0], probabilities, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[1], meant, rtol=1e-3, atol=1e-2)


def test_what_stands_in_the_folder(run, folder):
    place = folder("onnx")
    graphs = {"propose.onnx", "judge.onnx"}
    others = {"card.json", "export.json", "model.stac.json", "recipe.yaml", "split.json"}
    assert {path.name for path in place.iterdir()} == graphs | others
    manifest = read_artefact(place).manifest
    assert manifest.suppression == Suppression(hull_iou=0.8, proposals=60, score=0.05, iou=0.5, detections=2000)
    assert manifest.suppression == load_checkpoint(run)[0].suppression
    assert (manifest.fixed, manifest.tile_px, set(manifest.files)) == ({"height": SIDE, "width": SIDE}, SIDE, graphs)
    assert manifest.agreement.source == "2 tiles of the run's own test split"
    assert manifest.agreement.tiles == 3 and manifest.agreement.overlap > 0.99 and manifest.agreement.objects > 5


def test_each_graph_holds_its_own_weights_alone(folder):
    model, parts = onnx.load(folder("onnx") / "propose.onnx"), onnx.load(folder("onnx") / "judge.onnx")
    assert [given.name for given in parts.graph.input] == ["proposals", *MAPS]
    assert [given.name for given in parts.graph.output] == ["probabilities", "boxes"]
    sizes = [{tuple(tensor.dims) for tensor in one.graph.initializer} for one in (model, parts)]
    assert {(32, 16 * 49), (49 * 16, 32)} & sizes[1] and not {(32, 16 * 49), (49 * 16, 32)} & sizes[0]
    assert (16, 16, 3, 3) in sizes[0] and (16, 16, 3, 3) not in sizes[1]


def test_the_item_names_both_graphs_and_what_is_left_to_do(folder):
    told = json.loads((folder("onnx") / "model.stac.json").read_text())
    item = pystac.Item.from_dict(told)
    assert set(item.assets) == {"propose", "judge", "card"}
    assert told["properties"]["mlm:tasks"] == ["object-detection"]
    assert told["properties"]["mlm:architecture"] == "Oriented R-CNN on test_resnet"
    probabilities, boxes = told["properties"]["mlm:output"]
    assert (probabilities["result"]["shape"], boxes["result"]["shape"]) == ([-1, 2], [-1, 5])
    assert [one["description"] for one in probabilities["classification:classes"]] == list(NAMES)
    assert told["properties"]["mlm:hyperparameters"]["suppression"]["iou"] == 0.5


def test_the_folder_maps_as_the_run(run, folder, objects, tmp_path, terralean):
    scene, columns = objects / "test" / "images" / "2.tif", {}
    for name, place in (("run", run), ("graph", folder("onnx"))):
        status, _, err = terralean("map", place, scene, "--out", tmp_path / name, "--device", "cpu")
        assert status == 0, err
        meta, _, _, values = pyogrio.raw.read(tmp_path / name / "2_boxes.gpkg")
        columns[name] = {field: part for field, part in zip(meta["fields"], values, strict=True) if field != "class"}
    rows = [np.stack([*columns[name].values()], axis=1) for name in ("run", "graph")]
    assert len(rows[0]) > 5
    run_rows, graph_rows = (some[np.lexsort(some[:, 2:4].round(1).T)] for some in rows)
    np.testing.assert_allclose(graph_rows, run_rows, atol=0.02)
    status, _, err = terralean("map", folder("onnx"), scene, "--out", tmp_path / "other", "--tile", "64")
    assert (status, f"was exported with a fixed height of {SIDE} px, got 64; use --tile {SIDE}" in err) == (2, True), err


def test_another_size_and_a_manifest_without_suppression(graphs, folder, tmp_path):
    image, valid = pictures(1)
    with pytest.raises(SizeError, match="with a fixed height of 96 px, got 64"):
        graphs("onnx").detect(image[..., :64, :64], valid[..., :64, :64])
    copy = shutil.copytree(folder("onnx"), tmp_path / "copy")
    told = json.loads((copy / "export.json").read_text())
    (copy / "export.json").write_text(json.dumps({**told, "suppression": None}))
    with pytest.raises(RunError, match="has no suppression, without which a detector finds no objects; export the run again"):
        load(copy)


@pytest.mark.slow
def test_lower_precision_is_compared_too(run, tmp_path):
    result = export_run(run, tmp_path / "half", config=ExportConfig(format="torch", precision="fp16"), read=read_data)
    assert 0 < result.agreement.difference < 0.03


@pytest.mark.slow
def test_what_differs_too_much_is_not_kept(run, tmp_path):
    strict = BoxesLimits(bf16=BoxesLimit(overlap=0.9, same=1.0, difference=0.0))
    config = ExportConfig(format="torch", precision="bf16", boxes_limits=strict)
    with pytest.raises(ExportDiffers, match=r"torch in bf16 differs too much from the network on .* a score differs by"):
        export_run(run, tmp_path / "out", config=config, read=read_data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("format_", "precision", "message"),
    [
        ("deepness", "fp32", "Deepness maps pixels, orcnn was trained for detection"),
        ("onnx", "int8", "of a detector of oriented boxes --format onnx can be fp32, fp16, got --precision int8"),
        ("openvino", "bf16", "of a detector of oriented boxes --format openvino can be fp32, got --precision bf16"),
    ],
)
def test_what_no_detector_is_exported_in(run, tmp_path, format_, precision, message):
    with pytest.raises(ConfigError, match=message):
        export_run(run, tmp_path / "out", config=ExportConfig(format=format_, precision=precision), read=read_data)
    with pytest.raises(ConfigError, match="orcnn finds oriented boxes, which timm cannot build"):
        export_timm(run, tmp_path / "out")
    assert not list(tmp_path.iterdir())


# How two sets of objects are compared.


def found(*rows: tuple[float, float, int]) -> Detected:
    """Squares of 10 px at x, with a score and a label."""
    boxes = torch.tensor([[x, 50.0, 10.0, 10.0, 0.0] for x, _, _ in rows]).reshape(-1, 5)
    return Detected(boxes, torch.tensor([score for _, score, _ in rows]), torch.tensor([label for _, _, label in rows]))


LIMIT = BoxesLimit(overlap=0.8, same=0.9, difference=0.1)


@pytest.mark.parametrize(
    ("ours", "same", "difference"),
    [
        (found((10, 0.9, 0), (40, 0.8, 1)), 1.0, 0.0),
        (found((10, 0.85, 0), (40, 0.8, 1)), 1.0, 0.05),
        (found((10.5, 0.9, 0), (40, 0.8, 1)), 1.0, 0.0),  # an IoU of 0.905
        (found((10, 0.9, 0)), 2 / 3, 0.0),  # one of two is missing, seen from one side
        (found((13, 0.9, 0), (40, 0.8, 1)), 0.5, 0.0),
        (found((10, 0.9, 1), (40, 0.8, 1)), 0.5, 0.0),  # of another class
        (found((10, 0.9, 0), (40, 0.8, 1), (70, 0.14, 1)), 1.0, 0.0),  # too unsure to count: it may be below the least score
        (found((10, 0.9, 0), (40, 0.8, 1), (70, 0.16, 1)), 0.8, 0.0),
        (found(), 0.0, 1.0),
    ],
)
def test_objects_are_found_by_both_or_not(ours, same, difference):
    theirs = found((10, 0.9, 0), (40, 0.8, 1))
    agreement = compare_found([ours], [theirs], source="squares", score=0.05, limit=LIMIT)
    assert (agreement.same_class, agreement.difference) == (pytest.approx(same), pytest.approx(difference, abs=1e-6))
    assert agreement.objects == 2
    if same < LIMIT.same:
        with pytest.raises(ExportDiffers, match=r"of 2 objects are found by both with an IoU of 0\.8"):
            check_found(agreement, LIMIT, what="onnx")
    else:
        check_found(agreement, LIMIT, what="onnx")


def test_where_nothing_is_found_nothing_is_compared():
    with pytest.raises(RunError, match="the run is sure of no object on squares, so that nothing can be compared; name scenes"):
        compare_found([found()], [found((10, 0.12, 0))], source="squares", score=0.05, limit=LIMIT)

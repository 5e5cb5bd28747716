"""A folder is written whole or not at all, holds what the run needs beside the graph, and answers as the network does."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio
import torch
from tiny_networks import eager, make_card, source

from terralean import recipes
from terralean.errors import ConfigError, ExportDiffers, OutputFailed, RunError
from terralean.export.config import ExportConfig, Limit, Limits
from terralean.export.onnx_file import heavy_nodes
from terralean.export.run import export_model, export_run
from terralean.export.tiles import Wanted, noise
from terralean.predict import load
from terralean.predict.artefact import read_artefact
from terralean.weights.card import read_card

FORMATS = [
    *(("onnx", precision) for precision in ("fp32", "fp16", "int8")),
    *(("openvino", precision) for precision in ("fp32", "bf16", "fp16", "int8")),
    *(("torch", precision) for precision in ("fp32", "bf16", "fp16")),
    *(("deepness", precision) for precision in ("fp32", "int8")),
]


def read_data(run: Path):
    return recipes.read_run(run)[0].data


@pytest.mark.parametrize(("format_", "precision"), FORMATS)
def test_every_format_and_precision_answers_as_the_network(exported, format_, precision):
    folder = exported(format_, precision)
    card = make_card()
    tiles = noise(Wanted(card, 64, 3, 7))
    tiles.valid[0, 10:20] = False
    expected, found = eager(card)(tiles.image, tiles.valid), load(folder)(tiles.image, tiles.valid)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(dim=1), torch.ones_like(found[:, 0]), rtol=1e-2, atol=1e-2)
    limit = Limits().of(precision)
    chosen = tiles.valid
    assert (found - expected).abs().amax(dim=1)[chosen].max() <= limit.difference
    assert (found.argmax(dim=1) == expected.argmax(dim=1))[chosen].float().mean() >= limit.same_class
    exact = precision == "fp32"
    assert torch.allclose(found, expected, atol=1e-4) == exact


@pytest.mark.parametrize("format_", ["onnx", "openvino", "torch"])
def test_height_width_and_batch_are_free(exported, format_):
    predictor, network = load(exported(format_)), eager(make_card())
    for batch, side in ((1, 64), (5, 96)):
        tiles = noise(Wanted(make_card(), side, batch, side))
        tiles = tiles._replace(image=tiles.image[..., :64], valid=tiles.valid[..., :64])
        torch.testing.assert_close(predictor(tiles.image, tiles.valid), network(tiles.image, tiles.valid), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("format_", ["onnx", "openvino", "torch"])
def test_whole_images_of_any_size_are_resized_inside(exported, format_):
    card = make_card(task="classification", seen_px=32)
    predictor, network = load(exported(format_, "fp32", card)), eager(card)
    for side in (32, 50, 17):
        tiles = noise(Wanted(card, side, 3, side))
        torch.testing.assert_close(
            predictor.recognise(tiles.image, tiles.valid),
            network.recognise(tiles.image, tiles.valid),
            rtol=1e-3,
            atol=1e-4,
        )


def test_what_stands_in_the_folder(exported):
    folder = exported("openvino", "fp16")
    assert {path.name for path in folder.iterdir()} == {
        *("model.xml", "model.bin", "card.json", "export.json", "model.stac.json")
    }
    assert read_card(folder) == make_card()
    manifest = read_artefact(folder).manifest
    assert (manifest.target, manifest.runtime, manifest.precision) == ("openvino", "openvino", "fp16")
    assert (manifest.tile_px, manifest.fixed, manifest.opset) == (64, {}, 20)
    assert manifest.agreement.source == "seeded noise, for want of the run's data"
    assert manifest.agreement.tiles == 4 + 1 + 2  # one more with a hole, and two of another size
    assert set(manifest.versions) == {"terralean", "python", "torch", "onnx", "openvino"}


def test_onnx_files_are_valid_and_tell_what_they_are(exported):
    model = onnx.load(exported("onnx") / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [found.version for found in model.opset_import if not found.domain] == [20]
    told = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(told["bands"]) == ["red", "green", "blue", "nir"]
    assert json.loads(told["classes"]) == ["field", "forest", "water <&>"]
    assert [given.name for given in model.graph.input] == ["image", "valid"]
    shape = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape[1] == 4
    assert all(isinstance(size, str) for size in (shape[0], shape[2], shape[3]))


def test_int8_has_its_products_in_8_bits_and_is_smaller_weight_by_weight(exported):
    model = onnx.load(exported("onnx", "int8") / "model.onnx")
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    made = {node.output[0]: node.op_type for node in model.graph.node}
    assert len(convolutions) == 2
    assert all(made[name] == "DequantizeLinear" for node in convolutions for name in node.input[:2])
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert any(value.dtype == np.int8 and value.shape == (16, 4, 3, 3) for value in stored.values())
    assert list(heavy_nodes(onnx.load(exported("onnx") / "model.onnx")))


def test_another_opset_is_written(tmp_path):
    card = make_card()
    given = source(card)._replace(calibration=None)
    export_model(given, tmp_path, config=ExportConfig(format="onnx", opset=18))
    assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == 18
    assert read_artefact(tmp_path).manifest.opset == 18


def test_a_graph_that_differs_too_much_is_not_kept(tmp_path):
    strict = Limits(fp16=Limit(difference=0.0, same_class=1.0))
    given = source(make_card())._replace(calibration=None)
    with pytest.raises(ExportDiffers, match=r"torch in fp16 differs too much from the network on .*nothing was kept"):
        export_model(given, tmp_path, config=ExportConfig(format="torch", precision="fp16", limits=strict))
    assert not (tmp_path / "export.json").exists()


def test_exporting_changes_nothing_of_the_network():
    card = make_card()
    given = source(card)
    before = {name: value.clone() for name, value in given.model.state_dict().items()}
    assert given.model.wide.weight.dtype == torch.float32
    network = eager(card)
    tiles = noise(Wanted(card, 64, 1, 0))
    expected = network(tiles.image, tiles.valid)
    assert all(torch.equal(before[name], value) for name, value in given.model.state_dict().items())
    assert torch.equal(network(tiles.image, tiles.valid), expected)


# Runs.


@pytest.fixture(scope="module")
def classifier(recogniser, tmp_path_factory) -> Path:
    """The recogniser as ONNX."""
    out = tmp_path_factory.mktemp("out") / "deep" / "onnx"
    export_run(recogniser, out, config=ExportConfig(format="onnx"), read=read_data)
    return out


def test_a_run_becomes_a_folder_that_answers_as_it_does(classifier, recogniser):
    assert not classifier.with_name("onnx.part").exists()
    tiles = noise(Wanted(read_card(recogniser), 40, 4, 1))
    ours, theirs = load(classifier), load(recogniser, device="cpu")
    torch.testing.assert_close(
        ours.recognise(tiles.image, tiles.valid), theirs.recognise(tiles.image, tiles.valid), rtol=1e-3, atol=1e-4
    )


@pytest.mark.slow
def test_a_run_with_its_data_is_compared_on_them_and_maps_and_is_evaluated_as_the_run(finished, data, tmp_path, terralean):
    own, out = tmp_path / "own", tmp_path / "out"
    shutil.copytree(finished, own)  # evaluation writes scores into it
    result = export_run(own, out, config=ExportConfig(format="torch", checked_tiles=2), read=read_data)
    assert result.agreement.source == "2 tiles of the run's own test split"
    assert result.fixed == {"height": 32, "width": 32}  # tiles of 32 px leave LeMeViT maps of one pixel
    assert result.notes == ("fixed: height 32, width 32 (32 px is no multiple of 1 px from 33 px)",)
    assert {"recipe.yaml", "split.json"} <= {path.name for path in out.iterdir()}
    for folder, name in ((own, "run"), (out, "graph")):
        assert terralean("map", folder, data / "3.tif", "--out", tmp_path / name, "--device", "cpu")[0] == 0
        assert terralean("evaluate", folder, "--out", tmp_path / f"{name}_report", "--device", "cpu")[0] == 0
    with rasterio.open(tmp_path / "run" / "3_map.tif") as run, rasterio.open(tmp_path / "graph" / "3_map.tif") as graph:
        assert np.array_equal(run.read(), graph.read())
        assert graph.tags()["TERRALEAN_PRECISION"] == "fp32"
    run, graph = (json.loads((tmp_path / f"{name}_report" / "evaluation.json").read_text()) for name in ("run", "graph"))
    assert graph["mIoU"] == run["mIoU"]


def test_a_folder_in_use_is_left_alone(recogniser, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(RunError, match="is not an empty folder; name a new one with --out"):
        export_run(recogniser, tmp_path, config=ExportConfig(format="torch"), read=read_data)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_is_left_of_an_export_that_fails(recogniser, tmp_path):
    strict = Limits(fp16=Limit(difference=0.0, same_class=1.0))
    config = ExportConfig(format="torch", precision="fp16", limits=strict)
    with pytest.raises(ExportDiffers):
        export_run(recogniser, tmp_path / "out", config=config, read=read_data)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to(recogniser, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFailed, match="could not be written"):
        export_run(recogniser, tmp_path / "file" / "out", config=ExportConfig(format="torch"), read=read_data)


def test_what_was_exported_is_not_exported_again(classifier, tmp_path):
    with pytest.raises(RunError, match="is an exported model already; name the run that it was made of"):
        export_run(classifier, tmp_path / "out", config=ExportConfig(format="torch"), read=read_data)


def test_int8_wants_real_tiles(recogniser, tmp_path):
    with pytest.raises(
        RunError, match="its training data are gone, and int8 has to see real tiles; name some with --calibrate"
    ):
        export_run(recogniser, tmp_path / "out", config=ExportConfig(format="onnx", precision="int8"), read=read_data)


def test_deepness_maps_pixels_only(recogniser, tmp_path):
    with pytest.raises(ConfigError, match="Deepness maps pixels, small_cnn was trained for classification"):
        export_run(recogniser, tmp_path / "out", config=ExportConfig(format="deepness"), read=read_data)
    assert not list(tmp_path.iterdir())

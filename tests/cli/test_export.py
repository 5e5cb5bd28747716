"""`terralean export`: status and words."""

import json

import numpy as np
import pytest
import rasterio


def test_export_tells_how_timm_reads_it(terralean, untrained, tmp_path):
    status, out, _ = terralean("export", untrained, "--format", "timm", "--out", tmp_path / "out")
    assert status == 0
    assert out == f"{tmp_path}/out: timm.create_model('local-dir:{tmp_path}/out', pretrained=True)\n"
    status, _, err = terralean("export", untrained, "--format", "timm", "--out", tmp_path / "out", "--json")
    assert status == 2
    assert "is not an empty folder; name a new one with --out" in err


def test_a_graph_is_told_with_what_it_was_compared_on_and_is_used_in_place_of_the_run(terralean, recogniser, scene, tmp_path):
    status, out, _ = terralean("export", recogniser, "--format", "onnx", "--out", tmp_path / "onnx", "--check", scene)
    assert status == 0
    first, second, *notes = out.splitlines()
    assert first.startswith(f"{tmp_path}/onnx: model.onnx ")
    assert second.startswith(
        f"compared with the run on 8 tiles of {scene}: 100.00% with the same class, probabilities differ by"
    )
    assert not notes
    for folder in (recogniser, tmp_path / "onnx"):
        status, out, _ = terralean("map", folder, scene, "--out", tmp_path / f"maps_{folder.name}", "--device", "cpu", "--json")
        assert status == 0
    with rasterio.open(tmp_path / "maps_onnx" / "scene_map.tif") as graph:
        (of_run,) = tmp_path.glob("maps_recogniser*/scene_map.tif")
        with rasterio.open(of_run) as run:
            assert np.array_equal(graph.read(), run.read())
    status, _, err = terralean("map", tmp_path / "onnx", scene, "--out", tmp_path / "other", "--precision", "bf16")
    assert (status, "was exported in fp32, got --precision bf16; leave it out" in err) == (2, True)
    status, _, err = terralean("explain", tmp_path / "onnx", scene, "--out", tmp_path / "why", "--show", "attention")
    assert (status, "is an exported graph, which predicts and shows nothing else" in err) == (2, True)


def test_as_json(terralean, recogniser, tmp_path):
    given = (
        "export",
        recogniser,
        "--format",
        "torch",
        "--out",
        tmp_path / "out",
        "--precision",
        "fp16",
        "--tile",
        "40",
        "--json",
    )
    status, out, _ = terralean(*given)
    told = json.loads(out)
    assert status == 0
    assert (told["format"], told["precision"], told["fixed"]) == ("torch", "fp16", {})
    assert told["agreement"]["source"] == "seeded noise, for want of the run's data"
    assert told["files"] == {"model.pt2": (tmp_path / "out" / "model.pt2").stat().st_size}
    assert json.loads((tmp_path / "out" / "export.json").read_text())["tile_px"] == 40


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--format", "onnx", "--precision", "bf16"), "--format onnx can be fp32, fp16, int8, got --precision bf16"),
        (("--format", "onnx", "--opset", "9"), "--opset must be 18 to 23, got 9"),
        (("--format", "onnx", "--tile", "0"), "tile_px must be at least 1, got 0"),
        (("--format", "timm", "--opset", "20"), "opset: of no meaning with --format timm"),
        (("--format", "deepness"), "Deepness maps pixels, small_cnn was trained for classification"),
        (("--format", "onnx", "--set", "reduce.method=tome"), "model small_cnn has no place for reduce.method=tome"),
        (("--format", "onnx", "--check", "nowhere.tif"), "nowhere.tif is not there"),
        (("--format", "onnx", "--precision", "int8"), "int8 has to see real tiles; name some with --calibrate SCENE"),
    ],
)
def test_mistakes(terralean, recogniser, tmp_path, given, message):
    status, _, err = terralean("export", recogniser, "--out", tmp_path / "out", *given)
    assert (status, message in err) == (2, True), err
    assert not (tmp_path / "out").exists()

"""Exported graphs at work: from several threads at once, and what they refuse."""

import json
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tiny_networks import eager, make_card

import terralean
from terralean.errors import BandMismatch, ConfigError, MissingExtra, RunError, SizeError
from terralean.predict import load
from terralean.predict.artefact import digest
from terralean.predict.openvino_runtime import MOST
from terralean.tokens.tome import ToMeConfig

FORMATS = ["onnx", "openvino", "torch", "deepness"]


def pictures(number: int, *, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    image = torch.randint(0, 4000, (3, 4, side, side), generator=generator).float()
    return image, torch.rand(3, side, side, generator=generator) > 0.1


@pytest.mark.parametrize("format_", FORMATS)
def test_threads_do_not_disturb_each_other(exported, format_):
    predictor = load(exported(format_))
    given = [pictures(number) for number in range(8)]
    alone = [predictor(*pair) for pair in given]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: predictor(*pair), given * 3))
    assert all(torch.equal(found, alone[number % 8]) for number, found in enumerate(together))


def test_more_sizes_than_are_compiled_for(exported):
    card = make_card(task="classification", seen_px=32)
    predictor, network = load(exported("openvino", "fp32", card)), eager(card)
    for side in (*range(20, 20 + MOST), 60, 140):
        image, valid = pictures(side, side=side)
        torch.testing.assert_close(predictor.recognise(image, valid), network.recognise(image, valid), rtol=1e-3, atol=1e-4)


def test_signals_are_handled_after_another_thread_has_let_the_graph_go(exported):
    """A memory fault otherwise: in a process of its own."""
    code = f"""
import gc, os, signal, threading, torch
from terralean.predict import load
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
held = [load({str(exported("openvino"))!r})]
held[0](torch.zeros(1, 4, 64, 64), torch.ones(1, 64, 64, dtype=torch.bool))
def let_go():
    held.clear()
    gc.collect()
thread = threading.Thread(target=let_go)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_not_valid_is_never_seen(exported, format_):
    predictor, (image, valid) = load(exported(format_)), pictures(0)
    other = image.masked_fill(~valid[:, None], torch.nan)
    assert torch.equal(predictor(image, valid), predictor(other, valid))


@pytest.mark.parametrize("format_", FORMATS)
def test_other_numbers_of_bands(exported, format_):
    image, valid = pictures(0)
    with pytest.raises(BandMismatch, match="takes 4 bands, got 3"):
        load(exported(format_))(image[:, :3], valid)


def test_sizes_that_are_not_taken(exported):
    predictor = load(exported("deepness"))
    with pytest.raises(SizeError, match=r"with a fixed height of 64 px, got 96; use --tile 64, or export the run again with"):
        predictor(*pictures(0, side=96))
    with pytest.raises(SizeError, match=r"takes a height from 64 px in steps of 32 px, got 70; use --tile 64"):
        load(exported("torch"))(*pictures(0, side=70))


def test_what_an_exported_graph_cannot_do(exported):
    predictor, (image, valid) = load(exported("onnx")), pictures(0)
    assert (predictor.precision, predictor.device, predictor.card) == ("fp32", torch.device("cpu"), make_card())
    assert predictor.trace(image, valid) == ()
    for look in ("model", "network", "normalise"):
        with pytest.raises(ConfigError, match="is an exported graph, which predicts and shows nothing else; name the run"):
            getattr(predictor, look)
    with pytest.raises(ConfigError, match="has its method of token reduction built in; export the run again"):
        load(exported("onnx"), reduce=ToMeConfig())
    with pytest.raises(ConfigError, match="was exported in fp32, got --precision bf16; leave it out"):
        load(exported("onnx"), precision="bf16")
    assert load(exported("onnx"), precision="fp32").precision == "fp32"


@pytest.mark.parametrize(
    ("format_", "device", "message"),
    [
        ("openvino", "meta", "runs on the CPU, by OpenVINO, got --device meta"),
        ("onnx", "meta", "has no meta; use --device cpu"),
        ("onnx", "cuda:63", "is not here"),
    ],
)
def test_devices_that_are_not_there(exported, format_, device, message):
    with pytest.raises(ConfigError, match=message):
        load(exported(format_), device=device)


@pytest.mark.parametrize(("format_", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_runtime_that_is_not_installed_is_named_with_its_extra(exported, monkeypatch, format_, package):
    monkeypatch.setitem(sys.modules, package, None)  # what an import finds where there is no such package
    with pytest.raises(MissingExtra, match=rf"needs {package}, which is not here .*; pip install 'terralean\[export\]'"):
        load(exported(format_))


def test_a_model_that_is_loaded_maps_and_predicts(exported):
    model = terralean.load(exported("openvino"))
    image, _ = pictures(1)
    assert model.predict(image[0].numpy().astype(np.uint16)).classes.shape == (64, 64)


# Files.


def disguised(folder, tmp_path, change):
    """A copy whose graph is another one, and whose manifest says that it is the right one."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    told = json.loads((copy / "export.json").read_text())
    for name in told["files"]:
        change(copy / name)
        told["files"][name] = digest(copy / name)
    (copy / "export.json").write_text(json.dumps(told))
    return copy


def graph_of(path, *, bands: int, classes: int, opset: int = 20) -> None:
    """One that gives ones."""
    given = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", bands, "h", "w"]),
        helper.make_tensor_value_info("valid", TensorProto.BOOL, ["n", "h", "w"]),
    ]
    result = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", classes, "h", "w"])
    nodes = [helper.make_node("Identity", ["image"], ["probabilities"])]
    model = helper.make_model(
        helper.make_graph(nodes, "identity", given, [result]), opset_imports=[helper.make_opsetid("", opset)], ir_version=10
    )
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("bands", "classes", "message"),
    [(5, 3, "has 5 bands, the card beside it 4"), (4, 4, "has 4 classes, the card beside it 3")],
)
def test_a_graph_of_another_shape(exported, tmp_path, bands, classes, message):
    copy = disguised(exported("onnx"), tmp_path, lambda path: graph_of(path, bands=bands, classes=classes))
    with pytest.raises(RunError, match=message):
        load(copy)


def test_an_opset_that_the_runtime_does_not_know(exported, tmp_path):
    copy = disguised(exported("onnx"), tmp_path, lambda path: graph_of(path, bands=4, classes=3, opset=999))
    with pytest.raises(RunError, match=r"cannot be opened by onnxruntime .*with a lower --opset if it is too new"):
        load(copy)


@pytest.mark.parametrize("format_", ["onnx", "openvino", "torch"])
def test_a_file_that_is_no_graph(exported, tmp_path, format_):
    copy = disguised(exported(format_), tmp_path, lambda path: path.write_bytes(b"no graph"))
    with pytest.raises(RunError, match=r"cannot be (opened|read) by|is no archive of torch.export"):
        load(copy)


def test_an_archive_with_pickled_objects_is_not_read(exported, tmp_path):
    def with_pickles(path) -> None:
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        (config,) = (name for name in content if name.endswith("weights_config.json"))
        told = json.loads(content[config])
        first = next(iter(told["config"]))
        told["config"][first]["use_pickle"] = True
        content[config] = json.dumps(told).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)

    copy = disguised(exported("torch"), tmp_path, with_pickles)
    with pytest.raises(RunError, match=r"holds pickled objects .*, which run code when they are read"):
        load(copy)

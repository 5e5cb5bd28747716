"""An exported folder is used only where its files are those that were written together."""

import json
import shutil
from dataclasses import replace

import pytest
from tiny_networks import make_card

from terralean.errors import RunError
from terralean.predict import load
from terralean.predict.artefact import WHOLE, is_artefact, read_artefact
from terralean.spec import Bands, Normalisation
from terralean.weights.card import read_card, write_card


@pytest.fixture
def folder(exported, tmp_path):
    """A copy to change."""
    return shutil.copytree(exported("onnx"), tmp_path / "copy")


def test_a_folder_of_a_run_is_none(untrained, folder):
    assert is_artefact(folder)
    assert not is_artefact(untrained)
    assert read_artefact(folder).graph(WHOLE) == folder / "model.onnx"


@pytest.mark.parametrize(
    "changes",
    [
        {"bands": Bands(names=("green", "red", "blue", "nir"), dtype="uint16")},
        {"normalisation": Normalisation(mean=(0.0,) * 4, std=(1.0,) * 4)},
        {"temperature": 2.0},
        {"seen_px": 64},
        {"model": "lemevit_tiny_light"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_card_that_the_graph_was_not_made_with(folder, changes):
    write_card(replace(make_card(), **changes), folder)
    with pytest.raises(RunError, match=r"card.json is not the one that the graph was exported with"):
        load(folder)


def test_scores_may_be_added_to_the_card(folder):
    write_card(replace(read_card(folder), metrics={"test": {"mIoU": 0.5}}), folder)
    assert read_artefact(folder).card.metrics == {"test": {"mIoU": 0.5}}


def test_a_damaged_graph(folder):
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(RunError, match=r"model.onnx is not the file that was exported: its content has changed"):
        load(folder)


def test_the_graph_of_another_export(folder, exported):
    shutil.copyfile(exported("onnx", "fp16") / "model.onnx", folder / "model.onnx")
    with pytest.raises(RunError, match="is not the file that was exported"):
        load(folder)


def test_a_missing_graph(folder):
    (folder / "model.onnx").unlink()
    with pytest.raises(RunError, match=r"model.onnx is missing beside export.json; copy the whole folder"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "export.json is not JSON"),
        ("[]", "has format None, this version of terralean reads format 1"),
        ('{"format": 7}', "has format 7, this version"),
        ('{"format": 1}', "export.json: target: "),
    ],
)
def test_a_manifest_that_cannot_be_read(folder, text, message):
    (folder / "export.json").write_text(text)
    with pytest.raises(RunError, match=message):
        load(folder)


def test_a_manifest_with_a_key_that_is_none_of_its(folder):
    told = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(told | {"quantised": True}))
    with pytest.raises(RunError, match="quantised"):
        load(folder)

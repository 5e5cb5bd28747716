"""The item is read by the authors' own package of the extension, and says what the graph is."""

import hashlib
import json
import re
from dataclasses import replace

import pystac
import pytest
from tiny_networks import make_card

from terralean.export.stac_item import architecture


@pytest.fixture(scope="module")
def item(exported) -> dict:
    return json.loads((exported("openvino", "fp16") / "model.stac.json").read_text())


def test_pystac_reads_it(item):
    read = pystac.Item.from_dict(item)
    assert read.geometry is None
    assert read.datetime is not None
    assert set(read.assets) == {"model", "model.bin", "card"}


def test_what_the_extension_demands(item):
    told = item["properties"]
    assert {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"} <= told.keys()
    assert told["mlm:tasks"] == ["semantic-segmentation"]
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", told["mlm:name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", told["mlm:framework_version"])
    assert all(re.fullmatch(r"[0-9a-zA-Z_.-]+", key) for key in told["mlm:hyperparameters"])
    assert any("mlm:model" in asset["roles"] for asset in item["assets"].values())
    assert "https://stac-extensions.github.io/mlm/v1.5.1/schema.json" in item["stac_extensions"]


def test_what_goes_in_and_comes_out(item):
    image, valid = item["properties"]["mlm:input"]
    assert image["input"] == {
        "shape": [-1, 4, -1, -1],
        "dim_order": ["batch", "bands", "height", "width"],
        "data_type": "float32",
    }
    assert image["bands"] == ["red", "green", "blue", "nir"]
    assert image["value_scaling"] is None  # it is inside the graph
    assert valid["input"]["shape"] == [-1, -1, -1]
    (result,) = item["properties"]["mlm:output"]
    assert result["result"]["shape"] == [-1, 3, -1, -1]
    assert [(one["value"], one["name"], one["description"], one["color_hint"]) for one in result["classification:classes"]] == [
        (0, "field", "field", "0072B2"),
        (1, "forest", "forest", "E69F00"),
        (2, "2_water_", "water <&>", "009E73"),
    ]
    bands = item["properties"]["bands"]
    assert [band.get("eo:center_wavelength") for band in bands] == [0.665, 0.56, 0.49, None]
    assert item["properties"]["mlm:hyperparameters"]["normalisation_mean"] == [1200.0, 900.0, 700.0, 2500.0]


def test_files_are_told_with_their_size_and_checksum(item, exported):
    folder = exported("openvino", "fp16")
    for name in ("model", "model.bin"):
        asset = item["assets"][name]
        content = (folder / asset["href"]).read_bytes()
        assert asset["file:size"] == len(content)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()


def test_deepness_divides_by_255(exported):
    told = json.loads((exported("deepness") / "model.stac.json").read_text())["properties"]["mlm:input"]
    assert [one["name"] for one in told] == ["image"]
    assert told[0]["value_scaling"] == [{"type": "scale", "value": 255}]
    assert told[0]["input"]["shape"] == [-1, 4, 64, 64]


@pytest.mark.parametrize(
    ("model", "sizes", "name"),
    [
        ("lemevit_tiny_light", {}, "LeMeViT"),
        ("light", {"backbone": "swin_tiny_patch4_window7_224"}, "Swin Transformer"),
        ("vit_base_segvit", {}, "Vision Transformer"),
        ("classifier", {"backbone": "convnext_atto"}, "convnext_atto"),
    ],
)
def test_names_of_architectures(model, sizes, name):
    assert architecture(replace(make_card(), model=model, sizes=sizes)) == name

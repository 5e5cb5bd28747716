import json

import pytest
import timm
import torch

import terralean.models  # noqa: F401 - makes timm know our names
from terralean.data.scene_config import SceneAugmentConfig, SceneDataConfig
from terralean.errors import ConfigError, RunError
from terralean.export.timm_folder import export_timm
from terralean.models import create
from terralean.spec import Bands, Classes, Normalisation
from terralean.weights.card import Card, Training
from terralean.weights.checkpoint import save_checkpoint


def card(model: str, *, sizes: dict | None = None, task: str = "classification") -> Card:
    return Card(
        version="0",
        task=task,
        model=model,
        sizes=sizes or {},
        seen_px=64 if task == "classification" else None,
        bands=Bands(names=("red", "green", "blue", "nir")),
        normalisation=Normalisation(mean=(51.0, 102.0, 25.5, 10.0), std=(25.5, 51.0, 10.2, 5.0)),
        classes=Classes.named(["field", "forest", "town"]),
        tile_px=64,
        overlap_px=0,
        training=Training(data="0" * 16, images=1, split="", leakage="", steps=1, minutes=0.0, seed=0),
    )


def trained(folder, told: Card) -> torch.nn.Module:
    torch.manual_seed(1)
    model = create(told.model, bands=4, classes=3, **told.sizes).eval()
    save_checkpoint(model, told, folder)
    return model


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("lemevit_tiny", {"meta_tokens": 8, "fusion": "tokens", "drop_path": 0.0}), ("classifier", {"backbone": "resnet10t"})],
)
def test_timm_builds_the_classifier_with_its_weights(tmp_path, name, sizes):
    ours = trained(tmp_path / "run", card(name, sizes=sizes))
    assert export_timm(tmp_path / "run", tmp_path / "out") == tmp_path / "out"
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    image = torch.randn(2, 4, 64, 48)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(image), ours(image))
    data = timm.data.resolve_model_data_config(theirs)
    assert tuple(data["input_size"]) == (4, 64, 64)
    assert data["mean"] == pytest.approx((0.2, 0.4, 0.1, 10 / 255))
    assert data["std"] == pytest.approx((0.1, 0.2, 0.04, 5 / 255))
    assert theirs.pretrained_cfg["label_names"] == ["field", "forest", "town"]


def test_timm_cuts_images_as_the_run_does(tmp_path):
    trained(tmp_path / "run", card("lemevit_tiny"))
    how = SceneDataConfig(size_px=64, resize_px=80, augment=SceneAugmentConfig(interpolation="bilinear"))
    for name, data, expected in (("cut", how, (0.8, "bilinear")), ("whole", None, (1.0, "bicubic"))):
        export_timm(tmp_path / "run", tmp_path / name, data=data)
        found = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{tmp_path / name}", pretrained=True))
        assert (found["crop_pct"], found["interpolation"]) == expected


def test_timm_makes_it_fit_other_classes_and_bands(tmp_path):
    ours = trained(tmp_path / "run", card("lemevit_tiny"))
    export_timm(tmp_path / "run", tmp_path / "out")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, num_classes=7)
    assert torch.equal(theirs.norm_c.weight, ours.norm_c.weight)
    assert torch.equal(theirs.stages[4][1].mlp[3].weight, ours.stages[4][1].mlp[3].weight)
    assert theirs.head.weight.shape == (7, 320)


def test_timm_builds_the_backbone_of_a_segmenter(tmp_path):
    ours = trained(tmp_path / "run", card("lemevit_tiny_light", task="segmentation"))
    export_timm(tmp_path / "run", tmp_path / "out")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, features_only=True, out_indices=(1, 3)).eval()
    image = torch.randn(1, 4, 64, 64)
    with torch.inference_mode():
        for mine, other in zip((ours.backbone(image)[i] for i in (1, 3)), theirs(image), strict=True):
            torch.testing.assert_close(other, mine)


def test_what_timm_cannot_know_stands_beside(tmp_path):
    trained(tmp_path / "run", card("lemevit_tiny"))
    export_timm(tmp_path / "run", tmp_path / "out")
    told = json.loads((tmp_path / "out" / "config.json").read_text())["terralean"]
    assert told["bands"] == ["red", "green", "blue", "nir"]
    assert told["dtype"] == "uint8"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors"}


def test_stored_values_that_are_no_bytes_keep_their_statistics(tmp_path):
    told = card("lemevit_tiny")
    wide = Bands(names=told.bands.names, dtype="uint16")
    save_checkpoint(create("lemevit_tiny", bands=4, classes=3), Card(**{**vars(told), "bands": wide}), tmp_path / "run")
    export_timm(tmp_path / "run", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["pretrained_cfg"]["mean"] == [51.0, 102.0, 25.5, 10.0]


@pytest.mark.parametrize(("name", "task"), [("unetformer_resnet18", "segmentation"), ("small_cnn", "classification")])
def test_what_timm_cannot_build_is_refused(tmp_path, name, task):
    trained(tmp_path / "run", card(name, task=task))
    with pytest.raises(ConfigError, match=f"model {name} is none that timm can build: only LeMeViT and timm's own"):
        export_timm(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(tmp_path):
    trained(tmp_path / "run", card("lemevit_tiny"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(RunError, match=r"out is not an empty folder; name a new one with --out"):
        export_timm(tmp_path / "run", tmp_path / "out")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"mine.txt": "kept"}

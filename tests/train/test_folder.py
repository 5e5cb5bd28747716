"""What a run's folder is refused for, and what is left of a run that was refused, killed or has diverged."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from terralean.errors import ConfigError, OutputFailed, RunError, UnknownName
from terralean.models import MODELS
from terralean.train.callbacks import PASSED_OVER, KeepBest, Tell, check_finite
from terralean.train.config import TrainConfig
from terralean.train.course import MIOU
from terralean.train.run import run
from terralean.weights.card import read_card
from terralean.weights.checkpoint import save_weights
from terralean.weights.lock import Lock


@pytest.fixture
def plain(monkeypatch):
    def build(*, bands: int, classes: int, drop_path: float):
        return nn.Conv2d(bands, classes, 3, padding=1)

    monkeypatch.setitem(MODELS, "plain", build)
    return "model.name=plain"


@pytest.fixture
def own(data, tmp_path):
    """A copy of the data that a test may change."""
    return shutil.copytree(data, tmp_path / "data")


@pytest.fixture
def begun(own, experiment, plain, tmp_path):
    """A run that was stopped in its third step of six."""

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment(plain), data=own, out=tmp_path / "run", device="cpu", tell=stop)
    return tmp_path / "run"


def relabel(path, change):
    with rasterio.open(path, "r+") as dataset:
        dataset.write(change(dataset.read()))


def one_pixel_more(mask):
    mask[0, 0, 0] = 1 - mask[0, 0, 0]
    return mask


def test_a_run_does_not_go_on_with_other_labels(begun, own, experiment, plain):
    relabel(own / "0_mask.tif", one_pixel_more)
    with pytest.raises(RunError, match=r"not those that .* was begun with:\n  counts of the classes: \(\d+, \d+\) then"):
        run(experiment(plain), data=own, out=begun, device="cpu")
    relabel(own / "0_mask.tif", one_pixel_more)
    assert run(experiment(plain), data=own, out=begun, device="cpu").steps == 6


def test_classes_are_not_exchanged_on_the_way_nor_at_the_end(begun, own, experiment, plain):
    told = (own / "classes.csv").read_text()
    other = "value,name,colour\n0,second,#0000ff\n1,first,#ff0000\n"
    (own / "classes.csv").write_text(other)
    with pytest.raises(RunError, match="classes: first, second then, second, first now"):
        run(experiment(plain), data=own, out=begun, device="cpu")
    (own / "classes.csv").write_text(told)
    run(experiment(plain), data=own, out=begun, device="cpu")
    (own / "classes.csv").write_text(other)
    with pytest.raises(RunError, match="classes: first, second then, second, first now"):
        run(experiment(plain), data=own, out=begun, device="cpu")
    (own / "classes.csv").write_text(told)
    assert run(experiment(plain), data=own, out=begun, device="cpu").already_done


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("last/state.ckpt", None, r"state\.ckpt, .* is damaged .*; restore it from a copy, or delete it to train again"),
        ("recipe.yaml", b"task: [", r"recipe\.yaml is not YAML .*; restore it from a copy, or give a new --out"),
        ("data.json", b"{", r"data\.json is not JSON"),
        ("data.json", b"[]", r"data\.json holds no values by name"),
    ],
)
def test_a_damaged_file_is_named_with_what_helps(begun, own, experiment, plain, name, content, message):
    path = begun / name
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(RunError, match=message):
        run(experiment(plain), data=own, out=begun, device="cpu")


def test_without_its_state_a_run_begins_anew(begun, own, experiment, plain):
    (begun / "last" / "state.ckpt").unlink()
    assert run(experiment(plain), data=own, out=begun, device="cpu").steps == 6


def test_a_run_that_was_killed_before_its_recipe_was_whole_begins_anew(own, experiment, plain, tmp_path):
    out = tmp_path / "run"
    (out / "last").mkdir(parents=True)
    (out / "last" / "lock").write_text("1\n")
    (out / "recipe.yaml.part").write_text("task: segm")
    assert run(experiment(plain), data=own, out=out, device="cpu").steps == 6
    assert not [path.name for path in out.iterdir() if path.name == "last" or path.suffix == ".part"]


def test_one_process_at_a_time_trains_in_a_folder(begun, own, experiment, plain):
    other = Lock(begun / "last")
    with pytest.raises(RunError, match=r"is being trained by another process, \d+; wait until it is done, stop it, or give"):
        run(experiment(plain), data=own, out=begun, device="cpu")
    other.release()
    assert run(experiment(plain), data=own, out=begun, device="cpu").steps == 6


@pytest.mark.parametrize("out", ["classes.csv/run", "/proc/run"])
def test_what_cannot_be_written_is_found_before_data_are_read(own, experiment, plain, out):
    path = own / out
    with pytest.raises(OutputFailed, match=r"run cannot be written: .*; choose another --out"):
        run(experiment(plain), data=own / "nowhere", out=path, device="cpu")


def test_a_model_that_is_not_there_is_found_before_data_are_read(own, experiment):
    with pytest.raises(UnknownName, match="no model 'lemevit_tiny_ligth'; nearest: lemevit_tiny_light"):
        run(experiment("model.name=lemevit_tiny_ligth"), data=own / "nowhere", out=own / "run", device="cpu")
    with pytest.raises(ConfigError, match=r"model\.sizes\.drop_path must be 0 up to below 1, got 2"):
        run(experiment("model.sizes.drop_path=2"), data=own / "nowhere", out=own / "run", device="cpu")
    with pytest.raises(ConfigError, match=r"model\.sizes\.width must be 1 or more, got 0"):
        run(experiment("model.sizes.width=0"), data=own / "nowhere", out=own / "run", device="cpu")


def test_a_setting_that_the_first_step_refuses_leaves_no_folder(own, experiment, plain, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.loss\.main=atm compares masks"):
        run(experiment(plain, "train.loss.main=atm"), data=own, out=tmp_path / "runs" / "one", device="cpu")
    assert not (tmp_path / "runs").exists()


def test_diverged_training_is_no_success(own, experiment, plain, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(RunError, match=r"diverged: the loss is \w+ at step \d of 6; train with a lower train\.lr than 1e\+30"):
        run(experiment(plain, "train.lr=1e30", "train.clip_norm=null"), data=own, out=out, device="cpu")
    assert not (out / "card.json").exists()


@pytest.mark.parametrize(("precision", "passed"), [("fp32", 0), ("bf16", 0), ("fp16", PASSED_OVER)])
def test_only_a_scaler_passes_losses_over_that_are_no_numbers(tmp_path, precision, passed):
    course = TrainConfig(steps=100, validate_every=1, precision=precision)
    told = Tell(lambda progress: None, course=course, best=KeepBest(tmp_path, score=MIOU, patience=None))

    def step(loss):
        told.on_train_batch_end(SimpleNamespace(global_step=7), None, {"loss": torch.tensor(loss)}, None, 0)

    for loss in (*[float("nan")] * passed, 1.0, *[float("inf")] * passed):
        step(loss)
    with pytest.raises(RunError, match="the loss is inf at step 7 of 100"):
        step(float("inf"))


def test_weights_that_are_no_numbers_are_not_kept(tmp_path):
    save_weights({"good": torch.ones(2), "count": torch.ones(1, dtype=torch.int64)}, tmp_path / "weights.safetensors")
    check_finite(tmp_path / "weights.safetensors", lr=0.1)
    save_weights({"good": torch.ones(2), "bad": torch.tensor([1.0, torch.nan])}, tmp_path / "weights.safetensors")
    with pytest.raises(RunError, match=r"weights are no numbers \(bad for one\); train with a lower train.lr than 0\.1"):
        check_finite(tmp_path / "weights.safetensors", lr=0.1)


def test_splits_without_a_label_judge_nothing(own, experiment, plain, tmp_path, caplog):
    for index in (2, 3):
        relabel(own / f"{index}_mask.tif", lambda mask: np.full_like(mask, 255))
    result = run(experiment(plain), data=own, out=tmp_path / "run", device="cpu")
    warned = [record.getMessage() for record in caplog.records if "has a label" in record.getMessage()]
    assert "no pixel of the validation split has a label" in warned[0]
    assert "the last weights are kept" in warned[0]
    assert "no pixel of the test split has a label" in warned[1]
    assert "cannot be evaluated" in warned[1]
    assert result.validation is None
    assert "validation" not in read_card(tmp_path / "run").metrics
    json.loads((tmp_path / "run" / "card.json").read_text(), parse_constant=pytest.fail)  # NaN

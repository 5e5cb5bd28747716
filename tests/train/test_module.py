import os
import signal
import subprocess
import sys
from itertools import chain

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from terralean.models import MODELS
from terralean.spec import Normalisation
from terralean.train.config import TrainConfig
from terralean.train.loaders import Loaders
from terralean.train.material import from_folder
from terralean.train.module import SegmentationModule
from terralean.train.run import run

ENDED = """
import os, signal, sys
from pathlib import Path
from terralean import recipes
from terralean.train.run import run
def tell(progress):
    if progress.step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
experiment = recipes.read("lemevit_tiny_light", changes=sys.argv[3:])
run(experiment, data=Path(sys.argv[1]), out=Path(sys.argv[2]), device="cpu", tell=tell)
"""


@pytest.fixture
def plain(monkeypatch):
    """A model without batch norm: what it makes of a crop does not depend on the others."""

    def build(*, bands: int, classes: int, drop_path: float):
        torch.manual_seed(5)
        return nn.Sequential(nn.Conv2d(bands, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, classes, 3, padding=1))

    monkeypatch.setitem(MODELS, "plain", build)
    return "model.name=plain"


def epoch(material, config, *, rank, count):
    """Sums of the images of each batch that a process sees in the first epoch."""
    loader = Loaders(material, config, rank=rank, count=count).train_dataloader()
    return [sorted(batch["image"].double().sum(dim=(1, 2, 3)).tolist()) for batch in loader]


@pytest.mark.parametrize(("count", "accumulate"), [(2, 1), (4, 1), (2, 2)])
def test_a_step_has_the_same_crops_however_many_processes_share_them(data, experiment, count, accumulate):
    whole = experiment("train.batch=4", f"train.accumulate={accumulate}")
    material = from_folder(whole, data)
    alone = epoch(material, whole.training, rank=0, count=1)
    shares = [epoch(material, whole.training, rank=rank, count=count) for rank in range(count)]
    assert len(alone) == 2 * accumulate
    assert [sorted(chain(*parts)) for parts in zip(*shares, strict=True)] == alone
    assert len({value for batch in alone for value in batch}) == 8


def test_validation_loss_is_that_of_all_samples_at_once():
    """However they are cut into batches; one of them has hardly a label, one has none."""
    torch.manual_seed(0)
    image, valid, mask = torch.rand(5, 2, 8, 8), torch.ones(5, 8, 8, dtype=torch.bool), torch.randint(0, 3, (5, 8, 8))
    mask[1, 1:], mask[2] = 255, 255
    config = TrainConfig(steps=100, validate_every=1)
    normalisation = Normalisation(mean=(0.5, 0.5), std=(0.3, 0.3))
    model = nn.Conv2d(2, 3, 3, padding=1)
    module = SegmentationModule(model, config, normalisation=normalisation, shrink=1, class_pixels=(5, 2, 1), seed=0).eval()
    found = []
    with torch.no_grad():
        want = module.loss(model(module.normalise(image, valid)), mask).item()
        for sizes in ((5,), (1, 1, 1, 1, 1), (2, 3)):
            module.on_validation_epoch_start()
            for number, rows in enumerate(torch.arange(5).split(sizes)):
                module.validation_step({"image": image[rows], "valid": valid[rows], "mask": mask[rows]}, number)
            found.append(module.validation_scores())
    assert [scores["val_loss"] for scores in found] == pytest.approx([want] * 3, rel=1e-6)
    assert len({scores["val_miou"] for scores in found}) == 1


def test_parts_of_a_batch_add_up_to_it(data, experiment, plain, tmp_path):
    """Where all pixels are labelled and count the same, and crops do not see one another, accumulating changes nothing."""
    changes = ("train.batch=4", "train.loss.dice=0", "train.loss.class_weights=none", "data.augment.zoom=[1,1]")
    for parts in (1, 2, 4):
        run(experiment(plain, *changes, f"train.accumulate={parts}"), data=data, out=tmp_path / str(parts), device="cpu")
    one, two, four = (load_file(tmp_path / str(parts) / "weights.safetensors") for parts in (1, 2, 4))
    torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(four, one, rtol=1e-5, atol=1e-6)


def test_dice_is_that_of_each_part(data, experiment, plain, tmp_path):
    changes = ("train.batch=4", "train.loss.dice=1", "train.loss.class_weights=none", "data.augment.zoom=[1,1]")
    for parts in (1, 4):
        run(experiment(plain, *changes, f"train.accumulate={parts}"), data=data, out=tmp_path / str(parts), device="cpu")
    one, four = (load_file(tmp_path / str(parts) / "weights.safetensors") for parts in (1, 4))
    assert any(not torch.allclose(one[name], four[name], rtol=1e-4) for name in one)


def test_ctrl_c_is_not_swallowed(data, experiment, tmp_path):
    def tell(progress):
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(experiment(), data=data, out=tmp_path / "run", device="cpu", tell=tell)
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "run" / "last" / "state.ckpt").is_file()
    assert run(experiment(), data=data, out=tmp_path / "run", device="cpu").steps == 6


def test_a_run_that_was_asked_to_end_does_not_say_that_all_is_well(data, experiment, tmp_path):
    line = [sys.executable, "-c", ENDED, str(data), str(tmp_path / "run"), *experiment.changes]
    assert subprocess.run(line, capture_output=True, check=False).returncode == -signal.SIGTERM

"""The authors' LoLA-SpecViT: keys, counts, and what it computes."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from terralean.cost.macs import parameters
from terralean.models import create
from terralean.models.lola_blocks import relative_index
from terralean.models.lola_specvit import LoLASpecViT
from weights import fill, image

GOLDEN = Path(__file__).parents[1] / "golden"
# Each gain after the one before; the product is exact twice and rounded once, as of the gain itself.
GAINS = {"1": 1.0, "2": 2.0, "1.5": 0.75}
AT_MOST = {  # relative errors
    "1": {"logits": 1e-5, "stem": 1e-5, "level1": 1e-5, "level2": 1e-5, "level3": 1e-5},
    "1.5": {"logits": 3e-5, "stem": 1e-5, "level1": 1e-5, "level2": 1e-5, "level3": 5e-5},
    "2": {"logits": 1e-3, "stem": 5e-5, "level1": 5e-5, "level2": 5e-5, "level3": 1e-3},
}


def shell(classes: int = 16, **changes) -> LoLASpecViT:
    """Without storage."""
    with torch.device("meta"):
        model = create("lola_specvit_published", bands=15, classes=classes)
        return LoLASpecViT(replace(model.config, **changes)) if changes else model


def filled(model: LoLASpecViT) -> LoLASpecViT:
    state = fill(model.state_dict())
    state |= {name: relative_index(7) for name in state if name.endswith("relative_position_index")}
    model.load_state_dict(state, assign=True)
    return model.eval()


def multiply(model: nn.Module, factor: float) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(factor)


def relative(ours: Tensor, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours.numpy() - theirs) / np.linalg.norm(theirs))


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "lola_specvit.npz"))


@pytest.fixture(scope="module")
def patches() -> Tensor:
    return torch.from_numpy(image(0, (2, 15, 15, 15)))


@pytest.mark.parametrize(("classes", "total", "trained"), [(16, 254_642_348, 73_586_944), (9, 254_639_541, 73_586_832)])
def test_it_has_the_published_parameters(classes, total, trained):
    model = shell(classes)
    assert (parameters(model), parameters(model, trainable=True)) == (total, trained)
    low_rank = sum(weight.numel() for name, weight in model.named_parameters() if re.search("lora_(up|down)", name))
    assert f"{low_rank / 1e6:.2f}" == "2.14"
    assert f"{100 * (1 - trained / total):.2f}" == "71.10"


def test_only_adapters_learn():
    assert all(weight.requires_grad == ("lora_" in name) for name, weight in shell().named_parameters())


@pytest.mark.parametrize("classes", [16, 9])
def test_state_dict_has_the_keys_and_shapes_of_the_authors(classes):
    theirs = json.loads((GOLDEN / "lola_specvit_keys.json").read_text())
    blocks = theirs["blocks (the * of levels.i.*)"]
    wanted = theirs["16 classes"] | (theirs["9 classes, only what differs"] if classes == 9 else {})
    spread = {}
    for name, shape in wanted.items():
        level = re.match(r"levels\.(\d)\.\*", name)
        for block in blocks[level[1]] if level else [""]:
            spread[name.replace("*", str(block))] = shape
    assert {name: list(tensor.shape) for name, tensor in shell(classes).state_dict().items()} == spread


def test_the_stem_and_the_first_two_stages_are_the_authors(golden, patches):
    model = filled(shell(depths=(3, 4, 0)))
    for gain, factor in GAINS.items():
        multiply(model, factor)
        with torch.inference_mode():
            found = dict(zip(("stem", "level1", "level2"), model.stages(patches), strict=False))
        for name, maps in found.items():
            theirs = golden[f"c16/gain{gain}/0/2x15x15x15/{name}_mean"]
            assert relative(maps.mean(dim=(2, 3)), theirs) < AT_MOST[gain][name], (gain, name)


@pytest.mark.slow  # a gigabyte of weights is drawn
def test_the_whole_network_is_the_authors(golden, patches):
    model = filled(shell())
    head = filled(shell(9, depths=(0, 0, 0))).head
    for gain, factor in GAINS.items():
        multiply(model, factor)
        multiply(head, factor)
        with torch.inference_mode():
            third = model.stages(patches)[-1]
            pooled = model.norm(third.permute(0, 2, 3, 1)).mean(dim=(1, 2))
            found = {"c16": model(patches), "c9": head(pooled)}
        for classes, logits in found.items():
            key = f"{classes}/gain{gain}/0/2x15x15x15"
            assert relative(logits, golden[f"{key}/logits"]) < AT_MOST[gain]["logits"], key
            assert relative(third.mean(dim=(2, 3)), golden[f"{key}/level3_mean"]) < AT_MOST[gain]["level3"], key

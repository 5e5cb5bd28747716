import pytest
import torch

from terralean.models import create
from terralean.train.config import TrainConfig
from terralean.train.schedule import factor, optimiser, schedule


def config(**changes) -> TrainConfig:
    return TrainConfig(**{"steps": 100, "validate_every": 10, "lr": 0.01, "final_lr": 0.001, "warmup_steps": 10, **changes})


@pytest.mark.parametrize(
    ("kind", "step", "expected"),
    [
        ("cosine", 0, 0.1),
        ("cosine", 9, 1.0),
        ("cosine", 10, 1.0),
        ("cosine", 55, 0.55),
        ("cosine", 100, 0.1),
        ("poly", 55, 0.55),
        ("poly", 32, 0.1 + 0.9 * 68 / 90),
        ("poly", 200, 0.1),
    ],
)
def test_learning_rate_worked(kind, step, expected):
    assert factor(step, config(schedule=kind)) == pytest.approx(expected)


def test_cosine_and_poly_differ_between_the_ends():
    assert factor(30, config(schedule="cosine")) > factor(30, config(schedule="poly"))


def test_schedule_moves_the_optimiser():
    layer = torch.nn.Linear(2, 2)
    adamw = optimiser(layer, config())
    steps = schedule(adamw, config())
    assert adamw.param_groups[0]["lr"] == pytest.approx(0.001)
    adamw.step()
    steps.step()
    assert adamw.param_groups[0]["lr"] == pytest.approx(0.002)


def test_norms_biases_and_meta_tokens_are_not_decayed():
    model = create("lemevit_tiny_light", bands=3, classes=2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = set(), set()
    for group in optimiser(model, config(weight_decay=0.3)).param_groups:
        assert group["weight_decay"] in (0, 0.3)
        (decayed if group["weight_decay"] else spared).update(names[id(p)] for p in group["params"])
    assert len(decayed) + len(spared) == len(names)
    assert "backbone.meta_tokens" in spared
    assert "backbone.stages.3.0.attn.qkv.weight" in decayed
    assert not [name for name in decayed if name.endswith("bias") or "norm" in name]

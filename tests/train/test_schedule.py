import pytest
import timm
import torch

from terralean.errors import ConfigError
from terralean.models import create
from terralean.train.config import TrainConfig
from terralean.train.detection_config import DetectionTrainConfig
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


def test_a_cooldown_stays_at_the_final_rate():
    cooled = config(cooldown_steps=30)
    assert [factor(step, cooled) for step in (70, 71, 99)] == pytest.approx([0.1] * 3)
    assert factor(40, cooled) == pytest.approx(0.55)
    assert factor(69, cooled) > 0.1
    with pytest.raises(ConfigError, match=r"warmup_steps 10 with train\.cooldown_steps 90 leaves nothing of 100 steps"):
        config(cooldown_steps=90)


def test_of_a_classifier_all_but_the_last_layer_is_the_backbone():
    model = timm.create_model("resnet10t", num_classes=5)
    adamw = optimiser(model, config(backbone_lr=0.5))
    rates = {id(p): group["lr"] for group in adamw.param_groups for p in group["params"]}
    fast = {name for name, p in model.named_parameters() if rates[id(p)] == 0.01}
    assert fast == {"fc.weight", "fc.bias"}
    assert {rates[id(p)] for name, p in model.named_parameters() if name not in fast} == {0.005}


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


def test_the_backbone_has_its_own_rate():
    model = create("lemevit_tiny_light", bands=3, classes=2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    adamw = optimiser(model, config(backbone_lr=0.1, weight_decay=0.3))
    steps = schedule(adamw, config(backbone_lr=0.1))
    found = {}
    for group in adamw.param_groups:
        for parameter in group["params"]:
            found[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    assert found.keys() == set(names.values())
    first = 0.01 / 10  # the first step of the warm-up
    assert found["backbone.stages.3.0.attn.qkv.weight"] == (pytest.approx(0.1 * first), 0.3)
    assert found["backbone.meta_tokens"] == (pytest.approx(0.1 * first), 0)
    assert found["head.classify.weight"] == (pytest.approx(first), 0.3)
    assert found["head.classify.bias"] == (pytest.approx(first), 0)
    assert {name.split(".")[0] for name, (lr, _) in found.items() if lr < first / 2} == {"backbone"}
    assert {name.split(".")[0] for name, (lr, _) in found.items() if lr > first / 2} == {"head"}
    assert adamw.param_groups[0]["lr"] == pytest.approx(first)  # what metrics.csv shows is not the backbone's
    for _ in range(100):
        adamw.step()
        steps.step()
    assert sorted({group["lr"] for group in adamw.param_groups}) == pytest.approx([0.0001, 0.001])


def test_a_rate_for_no_backbone_is_refused():
    with pytest.raises(ConfigError, match=r"train\.backbone_lr: the model has no backbone, its parts are 0, 1; leave"):
        optimiser(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)), config(backbone_lr=0.1))
    with pytest.raises(ConfigError, match=r"train\.backbone_lr must be 0 or more"):
        config(backbone_lr=-0.1)


def test_steps_divide_the_rate_by_ten_after_two_thirds_and_once_more_near_the_end():
    course = DetectionTrainConfig(epochs=12, lr=0.01, batch=2, schedule="step", warmup_steps=4).course(tiles=9)
    assert course.steps == 60
    found = [factor(step, course) for step in (0, 3, 4, 39, 40, 54, 55, 59)]
    assert found == pytest.approx([0.25, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])

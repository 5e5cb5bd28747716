import pytest

from terralean.errors import ConfigError
from terralean.tasks.classification import MixConfig
from terralean.train.scene_config import GridConfig, SceneTrainConfig


def config(**changes) -> SceneTrainConfig:
    return SceneTrainConfig(**{"epochs": 10, "lr": 0.001, "batch": 32, "warmup_epochs": 1.0, **changes})


def test_epochs_become_steps():
    course = config(epochs=12, validate_every=3, warmup_epochs=1.5, cooldown_epochs=2.0).course(images=100)
    assert (course.steps, course.validate_every, course.warmup_steps, course.cooldown_steps) == (48, 12, 6, 8)


def test_validation_happens_once_at_least():
    assert config(validate_every=99).course(images=64).validate_every == 20


def test_what_is_no_step_reaches_the_course():
    settings = {
        "accumulate": 2,
        "backbone_lr": 0.1,
        "final_lr": 1e-6,
        "schedule": "poly",
        "weight_decay": 0.3,
        "clip_norm": 2.0,
        "ema_decay": 0.5,
        "patience": 4,
        "precision": "bf16",
        "workers": 3,
    }
    course = config(**settings).course(images=10)
    assert {name: getattr(course, name) for name in settings} == settings
    assert (course.lr, course.batch) == (0.001, 32)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, r"train\.epochs must be above 0, got 0"),
        ({"lr": 0.0}, r"train\.lr must be above 0"),
        ({"validate_every": 0}, r"train\.validate_every must be above 0"),
        ({"backbone_lr": -1.0}, r"train\.backbone_lr must be 0 or more, got -1"),
        ({"ema_decay": 1.0}, r"train\.ema_decay must be 0 up to below 1, got 1"),
        ({"label_smoothing": 1.0}, r"train\.label_smoothing must be 0 up to below 1, got 1"),
        ({"warmup_epochs": 10.0}, r"leave nothing of 10 epochs; lower them, e\.g\. --set train\.warmup_epochs=1"),
        ({"warmup_epochs": 5.0, "cooldown_epochs": 5.0}, r"warmup_epochs 5 and train\.cooldown_epochs 5 leave nothing"),
        ({"batch": 33, "mix": MixConfig(mixup=1.0)}, r"a batch must be even, got train\.batch 33 in 1 parts"),
        ({"batch": 30, "accumulate": 2, "mix": MixConfig(cutmix=1.0)}, r"got train\.batch 30 in 2 parts"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        config(**wrong)


def test_a_grid_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"grid\.cell_px must be above 0, got 0"):
        GridConfig(cell_px=0)
    with pytest.raises(ConfigError, match=r"cell_px 65 is more than a view sees, grid\.view_px 64; lower it"):
        GridConfig(view_px=64, cell_px=65)

import pytest
import timm
import torch
from torch._dynamo.utils import counters

from terralean.benchmark.candidates import relative_error, subject
from terralean.benchmark.run import BenchmarkConfig, Row, run
from terralean.cost.macs import Macs, count_macs_at, parameters
from terralean.errors import ConfigError, UnknownName
from terralean.models import create

NAMES = ("test_vit", "test_resnet")  # two of timm's smallest


def tiny(**changed) -> BenchmarkConfig:
    settings = {
        "models": NAMES,
        "batch": 2,
        "size_px": 32,
        "classes": 7,
        "device": "cpu",
        "modes": ("eager", "channels-last"),
        "rounds": 3,
        "seconds": 0.0,
    }
    return BenchmarkConfig(**{**settings, **changed})


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return run(tiny())


def test_every_model_runs_in_every_mode_and_precision(rows):
    found = [(row.model, row.mode, row.precision) for row in rows]
    assert len(set(found)) == len(found) == 2 * 2 * 2
    assert [row.model for row in rows] == ["test_vit"] * 4 + ["test_resnet"] * 4
    assert all(row.failure is None and row.rounds == 3 and row.calls == 1 for row in rows)


def test_cost_is_that_of_the_model(rows):
    model = timm.create_model("test_resnet", num_classes=7)
    macs = count_macs_at(model, (1, 3, 32, 32))
    for row in rows[4:]:
        assert (row.parameters, row.macs_layers, row.macs_attention) == (parameters(model), macs.layers, macs.attention)


def test_fastest_way_of_each_model_comes_first_and_is_marked(rows):
    for name in NAMES:
        own = [row for row in rows if row.model == name]
        assert [row.best for row in own] == [True, False, False, False]
        assert [row.images_per_s for row in own] == sorted((row.images_per_s for row in own), reverse=True)


def test_quartiles_lie_around_the_median(rows):
    assert all(row.images_per_s_low <= row.images_per_s <= row.images_per_s_high for row in rows)


def test_answers_are_compared_with_the_plain_model(rows):
    errors = {(row.model, row.mode, row.precision): row.relative_error for row in rows}
    for name in NAMES:
        assert errors[name, "eager", "fp32"] == 0.0
        assert errors[name, "channels-last", "fp32"] < 1e-5
        assert 1e-4 < errors[name, "eager", "bf16"] < 0.1


def test_processor_time_is_told_on_a_cpu(rows):
    assert all(row.processor_ms > 0 for row in rows)


def test_our_backbones_and_segmenters_run_with_any_number_of_bands():
    config = tiny(models=("lemevit_tiny", "lemevit_tiny_light"), bands=5, modes=("eager",), precisions=("fp32",), rounds=1)
    backbone, segmenter = run(config)
    macs = count_macs_at(create("lemevit_tiny_light", bands=5, classes=7), (1, 5, 32, 32))
    assert Macs(layers=segmenter.macs_layers, attention=segmenter.macs_attention) == macs
    assert backbone.parameters == parameters(timm.create_model("lemevit_tiny", in_chans=5, num_classes=7))


def test_model_that_fails_comes_last_with_the_reason():
    rows = run(tiny(models=("test_vit", "test_resnet"), size_px=30, modes=("eager",), precisions=("fp32",)))
    assert [(row.model, row.failure is None) for row in rows] == [("test_resnet", True), ("test_vit", False)]
    assert "30" in rows[1].failure
    assert rows[1].images_per_s is None
    assert not rows[1].best


def test_progress_ends_at_its_total_even_when_a_model_fails():
    told = []
    run(tiny(size_px=30, modes=("eager",), precisions=("fp32",)), progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == list(range(1, len(told) + 1))


@torch.inference_mode()
def test_fast_but_wrong_is_refused():
    right = subject("test_resnet", torch.randn(1, 3, 32, 32), classes=7, seed=0)
    answer = right.answer
    assert relative_error(answer, of=right, precision="fp32") == 0.0
    assert relative_error(1.05 * answer, of=right, precision="bf16") == pytest.approx(0.05, rel=1e-3)
    with pytest.raises(ValueError, match=r"differs from that of the plain float32 model by 0\.05"):
        relative_error(1.05 * answer, of=right, precision="fp32")
    with pytest.raises(ValueError, match="by nan"):
        relative_error(answer * float("nan"), of=right, precision="bf16")


@torch.inference_mode()
def test_seed_fixes_weights_and_leaves_the_global_generator_alone():
    image = torch.zeros(1, 3, 32, 32)
    before = torch.random.get_rng_state()
    answers = [subject("test_vit", image, classes=7, seed=seed).answer for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_unknown_model_names_the_nearest_before_anything_runs():
    with pytest.raises(UnknownName, match="no model 'lemevit_tinny' here or in timm; nearest: lemevit_tiny"):
        run(tiny(models=("test_vit", "lemevit_tinny")))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"seconds": -1.0}, r"seconds must not be negative, got -1\.0"),
        ({"precisions": ("fp32", "fp16")}, "precisions must be of fp32, bf16, got fp16"),
        ({"modes": ("eager", "compile")}, "modes must be of eager, channels-last, compiled, got compile"),
        ({"models": ()}, "models must be one or more different names, got none"),
        ({"models": ("a", "a")}, "models must be one or more different names, got a, a"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**setting)


@pytest.mark.slow
def test_compiled_models_that_share_code_are_all_compiled():
    """More models of one class than torch may compile one function for: it would go on in eager and only warn."""
    names = ("test_vit", "test_vit2", "test_vit3")
    before = counters["stats"]["unique_graphs"]
    with torch._dynamo.config.patch(recompile_limit=1):
        found = run(tiny(models=names, modes=("compiled",), precisions=("fp32",), size_px=64, rounds=1))
    assert [row.failure for row in found] == [None] * 3
    assert counters["stats"]["unique_graphs"] - before == 3
    assert all(row.relative_error < 1e-5 for row in found)

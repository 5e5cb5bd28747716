import pytest
import timm
import torch
from torch._dynamo.utils import counters

from terralean.benchmark.config import BenchmarkConfig, Size
from terralean.benchmark.run import Report, run
from terralean.cost.macs import Macs, count_macs_at, parameters
from terralean.errors import ConfigError, UnknownName
from terralean.models import create

NAMES = ("test_vit", "test_resnet")  # two of timm's smallest


def tiny(**changed) -> BenchmarkConfig:
    settings = {
        "models": NAMES,
        "batches": (2,),
        "sizes": (Size(32, 32),),
        "classes": 7,
        "device": "cpu",
        "modes": ("eager", "folded+channels-last"),
        "rounds": 3,
        "seconds": 0.0,
    }
    return BenchmarkConfig(**{**settings, **changed})


@pytest.fixture(scope="module")
def report() -> Report:
    return run(tiny())


@pytest.fixture(scope="module")
def several() -> Report:
    sizes = (Size(32, 32), Size(32, 64))
    return run(tiny(batches=(3, 1), sizes=sizes, modes=("eager",), precisions=("fp32",), rounds=2))


@pytest.fixture(scope="module")
def training() -> Report:
    return run(tiny(work="training", models=("test_vit",), modes=("eager", "channels-last"), rounds=2))


def test_every_model_runs_in_every_mode_and_precision(report):
    found = [(row.model, row.mode, row.precision) for row in report.rows]
    assert len(set(found)) == len(found) == 2 * 2 * 2
    assert [row.model for row in report.rows] == ["test_vit"] * 4 + ["test_resnet"] * 4
    assert all(row.failure is None and row.rounds == 3 and row.calls == 1 for row in report.rows)


def test_cost_is_that_of_the_model(report):
    model = timm.create_model("test_resnet", num_classes=7)
    macs = count_macs_at(model, (1, 3, 32, 32))
    for row in report.rows[4:]:
        assert (row.parameters, row.macs_layers, row.macs_attention) == (parameters(model), macs.layers, macs.attention)


def test_fastest_way_of_each_model_comes_first_and_is_marked(report):
    for name in NAMES:
        own = [row for row in report.rows if row.model == name]
        assert [row.best for row in own] == [True, False, False, False]
        assert [row.images_per_s for row in own] == sorted((row.images_per_s for row in own), reverse=True)


def test_quartiles_lie_around_the_median_and_latency_is_that_of_a_batch(report):
    for row in report.rows:
        assert row.images_per_s_low <= row.images_per_s <= row.images_per_s_high
        assert row.latency_ms_low <= row.latency_ms <= row.latency_ms_high
        assert row.latency_ms * row.images_per_s == pytest.approx(1000 * row.batch)


def test_answers_are_compared_with_the_plain_model(report):
    errors = {(row.model, row.mode, row.precision): row.relative_error for row in report.rows}
    for name in NAMES:
        assert errors[name, "eager", "fp32"] == 0.0
        assert errors[name, "folded+channels-last", "fp32"] < 1e-5
        assert 1e-4 < errors[name, "eager", "bf16"] < 0.1


def test_folded_norms_are_counted_where_a_model_has_them(report):
    found = {(row.model, row.mode): (row.norms_folded, row.norms_left) for row in report.rows}
    assert found["test_resnet", "folded+channels-last"] == (15, 0)
    assert found["test_vit", "folded+channels-last"] == (0, 0)
    assert found["test_resnet", "eager"] == (None, None)


def test_processor_time_is_told_on_a_cpu(report):
    assert all(row.processor_ms > 0 for row in report.rows)


def test_operations_a_second_are_compared_with_products_of_the_same_run(report):
    rates = {(rate.product.name, rate.product.precision): rate.gflops for rate in report.products}
    assert rates.keys() == {(name, precision) for name in ("square", "lemevit") for precision in ("fp32", "bf16")}
    for row in report.rows:
        assert row.gflops == pytest.approx(2 * row.macs_run * row.images_per_s / 1e9)
        assert row.gemm_gflops == rates["square", row.precision]
        assert row.gemm_lemevit_gflops == rates["lemevit", row.precision]
        assert row.share_of_gemm == pytest.approx(row.gflops / row.gemm_gflops)


def test_what_runs_is_what_is_counted_unless_a_models_own_fold_multiplies_less(report):
    assert all(row.macs_run == row.macs_layers + row.macs_attention for row in report.rows)
    config = tiny(models=("lemevit_tiny",), modes=("eager", "folded"), precisions=("fp32",), rounds=1)
    eager, folded = sorted(run(config).rows, key=lambda row: row.mode)
    assert folded.failure is None
    assert (eager.macs_layers, eager.macs_attention) == (folded.macs_layers, folded.macs_attention)
    assert eager.macs_run == eager.macs_layers + eager.macs_attention > folded.macs_run
    assert folded.relative_error < 1e-5


def test_every_size_and_batch_is_measured_and_has_its_own_best(several):
    found = [(row.model, row.height_px, row.width_px, row.batch) for row in several.rows]
    assert found == [(name, 32, width, batch) for name in NAMES for width in (32, 64) for batch in (3, 1)]
    assert all(row.best for row in several.rows)
    macs = {(row.model, row.width_px): row.macs_layers for row in several.rows}
    assert macs["test_resnet", 64] == pytest.approx(2 * macs["test_resnet", 32], rel=0.01)
    assert several.products[1].product.rows == 3 * 2 * 4


def test_training_is_measured_as_a_step_with_three_times_the_work(training):
    assert [row.work for row in training.rows] == ["training"] * 4
    assert all(row.failure is None and row.norms_folded is None for row in training.rows)
    for row in training.rows:
        assert row.gflops == pytest.approx(3 * 2 * row.macs_run * row.images_per_s / 1e9)
        assert row.held_bytes == 3 * 4 * row.parameters
        assert row.relative_error < (1e-4 if row.precision == "fp32" else 0.1)


def test_our_backbones_and_segmenters_run_with_any_number_of_bands():
    config = tiny(models=("lemevit_tiny", "lemevit_tiny_light"), bands=5, modes=("eager",), precisions=("fp32",), rounds=1)
    backbone, segmenter = run(config).rows
    macs = count_macs_at(create("lemevit_tiny_light", bands=5, classes=7), (1, 5, 32, 32))
    assert Macs(layers=segmenter.macs_layers, attention=segmenter.macs_attention) == macs
    assert backbone.parameters == parameters(create("lemevit_tiny", bands=5, classes=7))


# What goes wrong


def test_model_that_refuses_a_size_comes_last_with_the_reason():
    rows = run(tiny(models=("test_vit", "test_resnet"), sizes=(Size(30, 30),), modes=("eager",), precisions=("fp32",))).rows
    assert [(row.model, row.failure is None) for row in rows] == [("test_resnet", True), ("test_vit", False)]
    assert "test_vit does not take images of 30 px; of 32 px it does" in rows[1].failure
    assert rows[1].images_per_s is None
    assert not rows[1].best


def test_batch_that_does_not_fit_into_memory_is_a_row_and_the_others_are_measured():
    config = tiny(batches=(2, 10**9), models=("test_resnet",), modes=("eager",), precisions=("fp32",), rounds=1)
    good, bad = run(config).rows
    assert (good.batch, good.failure) == (2, None)
    assert bad.batch == 10**9
    assert "allocate" in bad.failure


def test_progress_ends_at_its_total_even_when_a_model_fails():
    told = []
    config = tiny(sizes=(Size(30, 30),), modes=("eager",), precisions=("fp32",))
    run(config, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == list(range(1, len(told) + 1))


def test_unknown_model_names_the_nearest_before_anything_runs():
    with pytest.raises(UnknownName, match="no model 'lemevit_tinny' here or in timm, and no group; nearest: lemevit_tiny"):
        run(tiny(models=("test_vit", "lemevit_tinny")))


def test_precision_that_only_a_gpu_has_is_refused_on_a_cpu():
    with pytest.raises(ConfigError, match="fp16 is for CUDA; on a CPU choose --precision bf16"):
        run(tiny(precisions=("fp16",)))


@pytest.mark.slow
def test_compiled_models_that_share_code_are_all_compiled():
    """More models of one class than torch may compile one function for: it would go on in eager and only warn."""
    names = ("test_vit", "test_vit2", "test_vit3")
    before = counters["stats"]["unique_graphs"]
    with torch._dynamo.config.patch(recompile_limit=1):
        found = run(tiny(models=names, modes=("compiled",), precisions=("fp32",), sizes=(Size(64, 64),), rounds=1)).rows
    assert [row.failure for row in found] == [None] * 3
    assert counters["stats"]["unique_graphs"] - before == 3
    assert all(row.relative_error < 1e-5 for row in found)


@pytest.mark.slow
def test_compiled_and_frozen_models_are_folded_and_right():
    rows = run(tiny(models=("test_resnet",), modes=("folded+compiled", "frozen"), precisions=("fp32",), rounds=1)).rows
    assert [row.failure for row in rows] == [None, None]
    assert all(row.relative_error < 1e-5 for row in rows)


@pytest.mark.slow
def test_compiled_training_has_the_plain_gradients():
    config = tiny(work="training", models=("test_vit",), modes=("compiled",), precisions=("fp32",), rounds=1)
    (row,) = run(config).rows
    assert row.failure is None
    assert row.relative_error < 1e-4


@pytest.mark.gpu
def test_half_precision_runs_and_trains_on_a_gpu():
    for work in ("inference", "training"):
        rows = run(tiny(work=work, device="cuda", modes=("eager",), precisions=("fp16",), sizes=(Size(64, 64),))).rows
        assert [row.failure for row in rows] == [None, None]
        assert all(row.processor_ms is None and row.peak_memory_bytes > 0 for row in rows)

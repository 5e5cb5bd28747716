import pytest

from terralean.benchmark.config import DEFAULT_MODES, BenchmarkConfig, Size, Workload, check_mode, read_size, treatments
from terralean.errors import ConfigError


@pytest.mark.parametrize(("text", "size"), [("224", Size(224, 224)), ("256x320", Size(256, 320)), ("8X9", Size(8, 9))])
def test_size_is_a_side_or_height_and_width(text, size):
    assert read_size(text) == size
    assert read_size(str(size)) == size


@pytest.mark.parametrize("text", ["", "x", "224x", "x224", "1x2x3", "2.5", "-3", "large"])
def test_other_words_are_no_size(text):
    with pytest.raises(ConfigError, match="a side in px, or HEIGHTxWIDTH"):
        read_size(text)


def test_every_batch_meets_every_size():
    config = BenchmarkConfig(
        models=("a", "b"), batches=(1, 8), sizes=(Size(64, 64), Size(32, 96)), precisions=("fp32",), modes=("eager",)
    )
    assert config.workloads == tuple(Workload(b, s) for s in (Size(64, 64), Size(32, 96)) for b in (1, 8))
    assert config.candidates == 2 * 4


@pytest.mark.parametrize("work", DEFAULT_MODES)
def test_usual_modes_depend_on_the_work_and_can_be_done(work):
    config = BenchmarkConfig(models=("a",), work=work)
    assert config.chosen_modes == DEFAULT_MODES[work]
    assert config.chosen_modes[0] == "eager"


def test_a_mode_says_what_is_done_in_order():
    assert treatments("eager") == ()
    assert treatments("folded+channels-last+compiled") == ("folded", "channels-last", "compiled")


@pytest.mark.parametrize(
    ("mode", "work", "message"),
    [
        ("compile", "inference", "no mode 'compile'; nearest: compiled"),
        ("compiled+folded", "inference", r"nearest: folded\+compiled\. A mode is eager, or one or more of folded"),
        ("compiled+frozen", "inference", "of compiled and frozen one at most"),
        ("eager+folded", "inference", "no mode 'eager\\+folded'; nearest: folded"),
        ("folded", "training", "mode 'folded' is for inference: batch norms and constants do not learn"),
        ("channels-last+frozen", "training", "is for inference"),
        ("?", "training", "nearest: eager"),
    ],
)
def test_modes_that_cannot_be_are_refused(mode, work, message):
    with pytest.raises(ConfigError, match=message):
        check_mode(mode, work=work)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batches": (8, 0)}, "batch must be at least 1, got 0"),
        ({"batches": (8, 8)}, "batches must be one or more different ones, got 8, 8"),
        ({"sizes": (Size(224, 0),)}, "size must be at least 1 px, got 224x0"),
        ({"sizes": ()}, "sizes must be one or more different ones, got none"),
        ({"bands": 0}, "bands must be at least 1, got 0"),
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"seconds": -1.0}, r"seconds must not be negative, got -1\.0"),
        ({"precisions": ("fp32", "int8")}, "precisions must be of fp32, bf16, fp16, got int8"),
        ({"modes": ("eager", "compile")}, "no mode 'compile'; nearest: compiled"),
        ({"modes": ()}, "modes must be one or more different ones, got none"),
        ({"models": ()}, "models must be one or more different ones, got none"),
        ({"models": ("a", "a")}, "models must be one or more different ones, got a, a"),
        ({"work": "idling"}, "work must be of inference, training, got idling"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        BenchmarkConfig(**{"models": ("a",), **setting})

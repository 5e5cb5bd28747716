import csv
import io
from dataclasses import fields, replace

import pytest
import timm
import torch
from rich.console import Console

from terralean.benchmark.published import PUBLISHED
from terralean.benchmark.run import Row
from terralean.benchmark.table import as_table, write_csv
from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import OutputFailed
from terralean.models import register

GOOD = Row(
    model="swin_tiny_patch4_window7_224",
    mode="compiled",
    precision="bf16",
    batch=8,
    size_px=224,
    bands=3,
    device="EPYC",
    threads=2,
    torch="2.15.0",
    parameters=28_288_354,
    macs_layers=4_350_000_000,
    macs_attention=123_000_000,
    images_per_s=12.3456,
    images_per_s_low=11.0,
    images_per_s_high=13.0,
    processor_ms=81.25,
    peak_memory_bytes=3 * 2**20,
    relative_error=0.0123,
    best=True,
    rounds=9,
    calls=2,
)
BAD = Row(
    model="other, with a comma",
    mode="eager",
    precision="fp32",
    batch=8,
    size_px=224,
    bands=3,
    device="EPYC",
    threads=2,
    torch="2.15.0",
    failure="RuntimeError: no",
)


def test_file_holds_every_field_of_every_row(tmp_path):
    path = tmp_path / "new" / "folder" / "speed.csv"
    write_csv([GOOD, BAD], path)
    with path.open(newline="") as file:
        good, bad = csv.DictReader(file)
    assert list(good) == [field.name for field in fields(Row)]
    assert good["images_per_s"] == "12.3456"
    assert good["best"] == "True"
    assert good["failure"] == ""
    assert (bad["model"], bad["images_per_s"], bad["failure"]) == ("other, with a comma", "", "RuntimeError: no")
    assert [p.name for p in path.parent.iterdir()] == ["speed.csv"]


def test_file_that_cannot_be_written_is_named_and_nothing_stays(tmp_path):
    (tmp_path / "speed.csv").mkdir()
    with pytest.raises(OutputFailed, match=r"speed\.csv could not be written: .*; choose another path"):
        write_csv([GOOD], tmp_path / "speed.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["speed.csv"]


def test_table_says_what_was_measured_where():
    text = printed([GOOD, BAD])
    assert "EPYC, 2 CPU threads, batches of 8 x 3 x 224 x 224, torch 2.15.0" in text
    for cell in ("28.29", "4.350", "0.123", "12.3", "11.0 .. 13.0", "81.2", " 3 ", "1e-02", "2872"):
        assert cell in text
    assert "other, with a comma eager fp32 failed: RuntimeError: no" in text


def test_failures_stand_below_measurements():
    text = printed([BAD, GOOD])
    assert text.index("28.29") < text.index("other, with a comma")


def test_what_was_not_measured_is_a_dash():
    assert " 12.3 " in printed([GOOD])
    assert " 12.3 " not in printed([replace(GOOD, images_per_s=None)])


def test_table_of_nothing_says_so():
    assert "nothing was measured" in printed([])


def printed(rows: list[Row]) -> str:
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(as_table(rows))
    return console.export_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_those_of_the_models_of_that_name(name):
    """So the published speed stands beside the model it belongs to. Their counts leave out what this package counts apart."""
    register()
    with torch.device("meta"):
        model = timm.create_model(name)
    assert parameters(model) / 1e6 == pytest.approx(PUBLISHED[name].parameters_m, rel=0.015)
    assert count_macs_at(model, (1, 3, 224, 224)).layers / 1e9 == pytest.approx(PUBLISHED[name].gmacs, rel=0.05)

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from terralean.benchmark.machine import Machine, Product, Rate
from terralean.benchmark.run import Report, Row
from terralean.benchmark.table import as_document, as_table

MACHINE = Machine(
    device="EPYC",
    processor="EPYC",
    instructions="AVX512",
    threads=2,
    tf32=None,
    system="Linux",
    python="3.12",
    torch="2.15.0",
    timm="1.0",
    terralean="0.1.0",
)
RATE = Rate(Product("square", "bf16", 1024, 1024, 1024), gflops=300.0, gflops_low=290.0, gflops_high=310.0)
GOOD = Row(
    model="swin_tiny_patch4_window7_224",
    work="inference",
    mode="folded+compiled",
    precision="bf16",
    batch=8,
    height_px=224,
    width_px=224,
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
    latency_ms=648.0,
    latency_ms_low=615.4,
    latency_ms_high=727.3,
    processor_ms=81.25,
    held_bytes=54 * 2**20,
    peak_memory_bytes=3 * 2**20,
    gflops=110.4,
    gemm_gflops=300.0,
    share_of_gemm=0.368,
    relative_error=0.0123,
    norms_folded=0,
    norms_left=0,
    best=True,
    rounds=9,
    calls=2,
)
BAD = Row(
    model="other",
    work="inference",
    mode="eager",
    precision="fp32",
    batch=8,
    height_px=224,
    width_px=224,
    bands=3,
    device="EPYC",
    threads=2,
    torch="2.15.0",
    failure="RuntimeError: [no] way",
)


def report(*rows: Row) -> Report:
    return Report(machine=MACHINE, products=(RATE,), rows=rows)


def printed(*rows: Row, width: int = 180) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(as_table(report(*rows), width=width))
    return console.export_text()


def test_table_says_what_was_measured_where():
    text = printed(GOOD, BAD)
    assert "inference, 8 x 224 px, 3 bands: EPYC, 2 CPU threads, torch 2.15.0" in text
    for cell in (
        "28.29",
        "4.350",
        "0.123",
        "12.3 (11.0 .. 13.0)",
        "648.0",
        "81.2",
        " 54 ",
        " 3 ",
        "110.4",
        "37%",
        "1e-02",
        "2872",
    ):
        assert cell in text
    assert "GEMM of this machine, bf16, 1024 x 1024 x 1024, square: 300.0 (290.0 .. 310.0) GFLOP/s" in text
    assert "other eager fp32 at 8 x 224 px failed: RuntimeError: [no] way" in text


def test_several_batches_and_sizes_have_a_column():
    text = printed(GOOD, replace(GOOD, batch=1, width_px=320))
    assert "inference: EPYC" in text
    assert "8 x 224 px" in text
    assert "1 x 224x320 px" in text


def test_published_speed_is_that_of_the_same_work():
    assert "4090" not in printed(replace(GOOD, model="resnet18"))
    training = printed(replace(GOOD, work="training"))
    assert " 873" in training
    assert "2872" not in training


def test_notes_say_what_could_not_be_folded():
    text = printed(
        GOOD,
        replace(GOOD, model="a", norms_folded=5, norms_left=1),
        replace(GOOD, model="b", norms_folded=None, norms_left=None, note="it resizes images"),
    )
    assert "swin_tiny_patch4_window7_224: no batch norm to fold" in text
    assert "a: 5 of 6 batch norms folded" in text
    assert "b at 224 px: it resizes images" in text
    assert "b: " not in text


def test_failures_stand_below_measurements():
    text = printed(BAD, GOOD)
    assert text.index("28.29") < text.index("other")


@pytest.mark.parametrize(("width", "left_out"), [(180, ()), (150, ("error", "CPU ms", "MiB")), (100, ("GFLOP/s", "+ peak"))])
def test_what_there_is_no_room_for_is_left_out_and_named_and_nothing_is_cut(width, left_out):
    text = printed(replace(GOOD, mode="folded+channels-last+compiled"), replace(BAD, model="a"), width=width)
    assert "…" not in text
    for name in ("swin_tiny_patch4_window7_224", "folded+channels-last+compiled", "12.3 (11.0 .. 13.0)"):
        assert name in text
    said = " ".join(text.partition("as all else in --csv and --json: ")[2].partition("GEMM of this")[0].split())
    header = f"{text.splitlines()[1]}  "
    assert all(name in said and f"  {name}  " not in header for name in left_out)
    assert bool(left_out) == bool(said)


def test_what_was_not_measured_is_a_dash():
    assert " 12.3 " in printed(GOOD)
    assert " 12.3 " not in printed(replace(GOOD, images_per_s=None))


def test_table_of_nothing_says_so():
    assert "nothing was measured" in printed()


def test_document_holds_machine_products_and_rows():
    document = json.loads(json.dumps(as_document(report(GOOD, BAD))))
    assert document["machine"]["instructions"] == "AVX512"
    assert document["products"] == [
        {
            **{"name": "square", "precision": "bf16", "rows": 1024, "inner": 1024, "columns": 1024},
            **{"gflops": 300.0, "gflops_low": 290.0, "gflops_high": 310.0},
        }
    ]
    assert [row["failure"] for row in document["rows"]] == [None, "RuntimeError: [no] way"]
    assert document["rows"][0]["latency_ms_high"] == pytest.approx(727.3)

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from terralean.benchmark import ledger as ledgers
from terralean.benchmark.files import write_csv
from terralean.benchmark.ledger import Entry, ledger
from terralean.benchmark.ledger_table import as_document, as_tables
from terralean.benchmark.machine import describe
from terralean.benchmark.published import (
    CDD,
    DOTA,
    IMAGENET,
    INFERENCE,
    MACS,
    PARAMETERS,
    POTSDAM,
    TOP1,
    TRAINING_MEMORY,
    Printed,
    Setting,
    table_3,
    table_4,
    table_5,
    table_6,
)

KEPT = Path(__file__).parents[2] / "benchmarks" / "results" / "paper_ledger.csv"


def entry(model: str | None, quantity, text: str, *, setting: Setting = IMAGENET, table: int = 3, row: str = "a") -> Entry:
    return ledgers._entry(Printed(table, row, model, setting, quantity, text))


def test_what_is_counted_stands_beside_what_is_published():
    found = entry("lemevit_tiny", PARAMETERS, "8.64")
    assert (found.published, found.measured, found.inferred) == ("8.64", 8.635816, None)
    assert (found.agrees, found.difference_percent, found.remark) == (True, -0.05, None)
    assert entry("lemevit_tiny", MACS, "1.78").measured == 1.778948224


def test_difference_is_that_of_the_printed_digits():
    found = entry("lemevit_tiny", PARAMETERS, "8.56")
    assert (found.agrees, found.difference_percent) == (False, 0.89)


@pytest.mark.parametrize("tokens", [8, 64])
def test_meta_tokens_are_those_of_the_row(tokens):
    found = entry("lemevit_small", MACS, "4.39", table=6, row=f"{tokens} meta tokens")
    assert found.measured == pytest.approx({8: 3.627, 64: 4.392}[tokens], abs=0.001)


@pytest.mark.parametrize(
    ("quantity", "setting", "words"),
    [
        (INFERENCE, IMAGENET, "RTX 4090 at batch 256; on a GPU of yours: terralean benchmark lemevit imagenet-peers"),
        (TRAINING_MEMORY, IMAGENET, "--batch 256 --train"),
        (TOP1, IMAGENET, "needs ImageNet-1K"),
        (TOP1, CDD, "needs the CDD data set"),
    ],
)
def test_what_cannot_be_measured_here_says_why(quantity, setting, words):
    found = entry("lemevit_tiny", quantity, "76.5", setting=setting)
    assert (found.measured, found.inferred, found.agrees, found.difference_percent) == (None,) * 4
    assert words in found.remark


@pytest.mark.parametrize(("row", "words"), [("PaCa-B", "PaCa-ViT"), ("FLatten-PVT-S", "FLatten")])
def test_models_that_are_not_built_are_cited_with_the_reason(row, words):
    found = entry(None, PARAMETERS, "46.91", row=row)
    assert found.measured is None
    assert words in found.remark
    assert "not in timm and not built here" in found.remark


@pytest.mark.parametrize(
    ("model", "parameters", "macs"),
    [("lemevit_tiny", 25.370, 153.88), ("lemevit_small", 33.145, 193.58), ("lemevit_base", 69.765, 334.98)],
)
def test_detectors_are_inferred_as_known_from_the_authors_code(model, parameters, macs):
    """Known: the authors' network laid out, its layers counted, without products of attention."""
    assert entry(model, PARAMETERS, "1", setting=DOTA, table=5).inferred == pytest.approx(parameters, abs=0.001)
    found = entry(model, MACS, "1", setting=DOTA, table=5)
    assert found.inferred == pytest.approx(macs, abs=0.006)
    assert found.measured is None


@pytest.mark.parametrize(
    "published",
    [p for p in table_5() if p.setting == CDD and p.model != "vitae_v2_s"],
    ids=lambda p: f"{p.row} {p.quantity.name}",
)
def test_change_networks_are_inferred_to_half_a_percent(published):
    if published.quantity in (PARAMETERS, MACS):
        found = ledgers._entry(published)
        tolerance = 0.0005 if published.quantity == PARAMETERS else 0.005
        assert found.inferred == pytest.approx(published.value, rel=tolerance)
        assert ("7 blocks" in found.remark) == (published.model == "lemevit_tiny" and published.quantity == PARAMETERS) or (
            "with 8 blocks" in found.remark
        )


@pytest.mark.parametrize(
    "published",
    [p for p in table_5() if p.setting == POTSDAM and p.model != "vitae_v2_s"],
    ids=lambda p: f"{p.row} {p.quantity.name}",
)
def test_segmenters_are_counted_and_what_the_authors_carry_is_inferred(published):
    found = ledgers._entry(published)
    if published.quantity == PARAMETERS:
        assert round(found.inferred, 2) == published.value
        assert found.measured < found.inferred
    elif published.quantity == MACS:
        assert found.measured == pytest.approx(published.value, rel=0.002)
    else:
        assert "potsdam_lemevit" in found.remark


def test_first_blocks_follow_the_formulas_of_table_2():
    """0.161 and 1.413, 0.358 and 2.235 GMACs; the products of both directions are twice what the table counts."""
    found = {(e.model, e.quantity): e for e in ledgers._table_2()}
    for model, with_self, with_dual in (("lemevit_tiny", 1.413, 0.161), ("lemevit_base", 2.235, 0.358)):
        alone = found[model, "first block with self-attention, MACs"]
        dual = found[model, "first block with dual cross-attention, MACs"]
        assert (round(alone.inferred, 3), round(dual.inferred, 3)) == (with_self, with_dual)
        assert round(dual.inferred, 2) == float(dual.published)
        products = found[model, "products of dual cross-attention, MACs"]
        assert products.measured == 2 * products.inferred
        tokens, meta, dim = 56 * 56, 16, ledgers.CONFIGS[model]().dims[1]
        block = 12 * (tokens + meta) * dim**2 + 9 * tokens * dim + 2 * (tokens**2 + meta**2) * dim
        assert alone.measured == pytest.approx(block / 1e9, rel=1e-9)
        block = 12 * (tokens + meta) * dim**2 + 9 * tokens * dim + 4 * tokens * meta * dim
        assert dual.measured == pytest.approx(block / 1e9, rel=1e-9)


def test_a_model_that_cannot_be_counted_is_a_remark():
    found = entry("no_such_model", MACS, "1")
    assert found.measured is None
    assert found.remark.startswith("it could not be counted: ")


# The whole


@pytest.fixture(scope="module")
def kept() -> list[dict[str, str]]:
    with KEPT.open(newline="") as file:
        return list(csv.DictReader(file))


def test_kept_ledger_has_every_published_number_once(kept):
    printed = [*table_3(), *table_4(), *table_5(), *table_6()]
    found = [(e["table"], e["row"], e["setting"], e["quantity"], e["published"]) for e in kept]
    assert len(set(found)) == len(found) == len(printed) + 3 * 3
    assert {(str(p.table), p.row, p.setting.words, p.quantity.name, p.text) for p in printed} <= set(found)


def test_kept_ledger_leaves_no_number_without_ours_or_a_reason(kept):
    assert not [e for e in kept if not (e["measured"] or e["inferred"] or e["remark"])]
    assert not [e for e in kept if e["agrees"] == "False" and not e["remark"]]


@pytest.mark.slow
def test_kept_ledger_is_what_is_counted_now(tmp_path):
    told = []
    write_csv(ledger(progress=lambda *now: told.append(now)), tmp_path / "ledger.csv", kind=Entry)
    assert (tmp_path / "ledger.csv").read_text() == KEPT.read_text()
    assert told[-1][0] == told[-1][1]


ENTRIES = [
    Entry(table=3, row="[A]", model="a", setting="s", quantity="MACs", unit="G", published="1.50", measured=1.499, agrees=True),
    Entry(
        **{"table": 3, "row": "[A]", "model": "a", "setting": "s", "quantity": "top-1", "unit": "%", "published": "80.0"},
        remark="needs [data]",
    ),
    Entry(
        **{"table": 5, "row": "B", "model": "b", "setting": "s", "quantity": "MACs", "unit": "G", "published": "2.00"},
        **{"measured": 2.1, "inferred": 2.04, "agrees": False, "difference_percent": 5.0, "remark": "norms"},
    ),
]


def test_tables_keep_published_measured_and_inferred_apart():
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(as_tables(ENTRIES))
    lines = console.export_text().splitlines()
    cells = [line.split() for line in lines]
    assert ["[A]", "s", "MACs,", "G", "1.50", "1.499", "-", "none"] in cells
    assert ["top-1,", "%", "80.0", "-", "-", "-", "[1]"] in cells
    assert ["B", "s", "MACs,", "G", "2.00", "2.100", "2.040", "+5.00", "%", "[2]"] in cells
    assert "[1] needs [data]" in [line.strip() for line in lines]
    assert (
        '3 published numbers: 2 counted here, 1 of them equal to the last printed digit ("none"); 0 more inferred'
        in "\n".join(lines)
    )


def test_document_names_its_source_and_versions():
    document = json.loads(json.dumps(as_document(ENTRIES, describe(torch.device("cpu")))))
    assert "arXiv 2405.09789" in document["source"]
    assert document["versions"]["torch"] == torch.__version__
    assert [e["measured"] for e in document["entries"]] == [1.499, None, 2.1]

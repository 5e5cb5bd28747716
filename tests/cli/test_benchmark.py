"""`terralean benchmark`: status, standard output, and the files."""

import csv
import json

import pytest

BENCHMARK = ("benchmark", "test_resnet", "--size", "32", "--batch", "2", "--rounds", "1", "--mode", "eager", "--device", "cpu")


def test_benchmark_writes_table_csv_and_figure(terralean, tmp_path):
    files = "--csv", tmp_path / "speed.csv", "--figure", tmp_path / "speed.svg", "--accuracy", "test_resnet=50"
    status, out, _ = terralean(*BENCHMARK, "--bands", "5", "--classes", "7", "--precision", "fp32", *files)
    assert status == 0
    assert "inference, 2 x 32 px, 5 bands" in out
    (row,) = csv.DictReader((tmp_path / "speed.csv").open(newline=""))
    assert (row["model"], row["bands"], row["mode"], row["precision"]) == ("test_resnet", "5", "eager", "fp32")
    assert "test_resnet" in (tmp_path / "speed.svg").read_text()


def test_benchmark_prints_one_document_of_every_size_batch_and_precision(terralean):
    status, out, _ = terralean(*BENCHMARK, "--size", "32x64", "--batch", "3", "--train", "--json")
    assert status == 0
    document = json.loads(out)
    found = {(r["batch"], r["width_px"], r["precision"]) for r in document["rows"]}
    assert found == {(b, w, p) for b in (2, 3) for w in (32, 64) for p in ("fp32", "bf16")}
    assert {r["work"] for r in document["rows"]} == {"training"}
    assert len(document["products"]) == 4


def test_benchmark_with_a_model_that_fails_is_status_1_and_measures_the_others(terralean):
    status, out, _ = terralean(*BENCHMARK, "test_vit", "--size", "30", "--precision", "fp32", "--json")
    assert status == 1
    failures = {(r["model"], r["height_px"]): r["failure"] for r in json.loads(out)["rows"]}
    assert failures.pop(("test_vit", 30)).startswith("SizeError: test_vit does not take images of 30 px; of 32 px it does")
    assert set(failures.values()) == {None}


@pytest.mark.slow
def test_paper_is_a_ledger(terralean, tmp_path):
    status, out, _ = terralean("benchmark", "--paper", "--csv", tmp_path / "paper.csv", "--json")
    assert status == 0
    entries = json.loads(out)["entries"]
    assert len(entries) == len(list(csv.DictReader((tmp_path / "paper.csv").open(newline=""))))

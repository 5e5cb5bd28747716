import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from terralean.data.config import DataConfig
from terralean.data.split import load_split
from terralean.evaluate.kept import NAME, fingerprint, keep, recall
from terralean.evaluate.measure import Measured, Shown
from terralean.evaluate.reliability import Reliability, Sums
from terralean.evaluate.token_cost import Left, TokenCost
from terralean.raster.coding import Coding
from terralean.raster.grid import Window
from terralean.tokens.tome import ToMeConfig
from terralean.weights.card import read_card


@pytest.fixture
def measured() -> Measured:
    generator = np.random.default_rng(0)
    return Measured(
        places=generator.integers(0, 9, (7, 3)),
        blocks=generator.integers(0, 2**40, (7, 2, 2)),
        blocks_unmapped=generator.integers(0, 9, (7, 2)),
        block_px=32,
        shown=Shown(
            region=1,
            window=Window(row=3, col=5, height=4, width=6),
            reference=generator.integers(0, 255, (4, 6)).astype(np.uint8),
            map=generator.integers(0, 255, (4, 6)).astype(np.uint8),
        ),
        windows=12,
        seconds=0.1 + 0.2,
        device="a processor, 2 threads",
        peak_bytes=None,
        reliability=Reliability(now=some_sums(generator), before=some_sums(generator)),
    )


def some_sums(generator) -> Sums:
    shapes = {"bins": (7, 15, 3), "losses": (7, 2), "classes": (2, 15, 3), "cells": (20, 3)}
    return Sums(**{name: generator.random(shape) for name, shape in shapes.items()})


def same(one: object, other: object) -> bool:
    if isinstance(one, Measured | Shown | Reliability | Sums):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    return one.tolist() == other.tolist() if isinstance(one, np.ndarray) else one == other


def test_what_is_kept_comes_back_bit_for_bit(measured, tmp_path):
    keep(measured, tmp_path, fingerprint="abc")
    found = recall(tmp_path, fingerprint="abc")
    assert same(found, measured)
    assert found.blocks.dtype == np.int64
    assert not list(tmp_path.glob("*.part"))
    without = dataclasses.replace(measured, reliability=dataclasses.replace(measured.reliability, before=None))
    keep(without, tmp_path, fingerprint="abc")
    assert same(recall(tmp_path, fingerprint="abc"), without)


def test_what_windows_cost_comes_back_too(measured, tmp_path):
    left = (Left(layer=2, shares=(0.1, 1 / 3)), Left(layer=5, shares=(0.0, 0.3)))
    cost = TokenCost(operations=(2**40, 7), macs=(5, 6), left=left, dense_operations=2**41, dense_macs=9, complete=False)
    keep(dataclasses.replace(measured, tokens=cost), tmp_path, fingerprint="abc")
    assert recall(tmp_path, fingerprint="abc").tokens == cost


def test_another_fingerprint_a_missing_and_a_broken_file_give_nothing(measured, tmp_path):
    assert recall(tmp_path, fingerprint="abc") is None
    keep(measured, tmp_path, fingerprint="abc")
    assert recall(tmp_path, fingerprint="abd") is None
    whole = (tmp_path / NAME).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text", whole[:-40] + b"x" * 40):
        (tmp_path / NAME).write_bytes(content)
        assert recall(tmp_path, fingerprint="abc") is None
    np.savez(tmp_path / NAME, blocks=measured.blocks)
    assert recall(tmp_path, fingerprint="abc") is None


def test_a_folder_that_cannot_be_written_to_keeps_nothing_and_says_so(measured, tmp_path, caplog):
    keep(measured, tmp_path / "absent", fingerprint="abc")
    assert "so the next evaluation predicts again" in caplog.text
    assert not (tmp_path / "absent").exists()


def test_the_fingerprint_changes_with_everything_that_the_counts_depend_on(finished, data):
    card, split = read_card(finished), load_split(finished / "split.json")
    config = DataConfig()

    def mark(**changes) -> str:
        values = {
            "folder": finished,
            "card": card,
            "regions": split.of("test"),
            "coding": split.coding,
            "config": config,
            "precision": "fp32",
            "device": "cpu",
            **changes,
        }
        folder, one, regions = values.pop("folder"), values.pop("card"), values.pop("regions")
        return fingerprint(folder, one, regions, **values)

    own = mark()
    assert own == mark()
    assert own == mark(card=dataclasses.replace(card, metrics={"test": {}}, cost={}))  # what an evaluation writes itself
    assert own == mark(config=dataclasses.replace(config, tile_px=64, cache_mb=7))  # nothing to do with the pixels
    moved = dataclasses.replace(split.of("test")[0], window=Window(row=0, col=0, height=48, width=47))
    others = [
        mark(card=dataclasses.replace(card, tile_px=64)),
        mark(card=dataclasses.replace(card, overlap_px=0)),
        mark(card=dataclasses.replace(card, reduce=ToMeConfig(r=1))),
        mark(card=dataclasses.replace(card, reduce=ToMeConfig(r=2))),
        mark(card=dataclasses.replace(card, shrink=2)),
        mark(card=dataclasses.replace(card, temperature=2 * card.temperature)),
        mark(card=dataclasses.replace(card, normalisation=dataclasses.replace(card.normalisation, mean=(1.0, 2.0)))),
        mark(regions=split.of("train")),
        mark(regions=(moved,)),
        mark(coding=Coding(ignored=(1,))),
        mark(config=dataclasses.replace(config, bands=(2, 1))),
        mark(config=dataclasses.replace(config, label_field="kind")),
        mark(precision="bf16"),
        mark(device="cuda"),
    ]
    assert len({own, *others}) == 1 + len(others)
    label = Path(split.of("test")[0].label)
    before = label.stat()
    try:
        os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        assert mark() != own
    finally:
        os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert mark() == own


def test_other_weights_are_another_fingerprint(finished, tmp_path):
    card, split = read_card(finished), load_split(finished / "split.json")
    options = {"coding": split.coding, "config": DataConfig(), "precision": "fp32", "device": "cpu"}
    content = bytearray((finished / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(content)
    marks = [fingerprint(folder, card, split.of("test"), **options) for folder in (finished, tmp_path)]
    assert marks[0] != marks[1]

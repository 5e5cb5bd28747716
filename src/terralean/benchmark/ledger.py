"""The paper's tables 2 to 6 as a ledger: each published number, ours where it can be had, and why not where it cannot.

Published, measured and inferred stand in columns of their own. Measured is what is counted now on the models of this package
and of timm, without computing anything; inferred is what a formula gives, on top of what is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import timm
import torch
from torch import nn

from terralean.benchmark import heads
from terralean.benchmark.candidates import FOREIGN, first_line
from terralean.benchmark.published import (
    CDD,
    DOTA,
    FIRST_BLOCKS,
    IMAGENET,
    INFERENCE,
    INFERENCE_MEMORY,
    MACS,
    MILLION_AID,
    OURS,
    PARAMETERS,
    POTSDAM,
    TRAINING,
    TRAINING_MEMORY,
    Printed,
    Setting,
    table_3,
    table_4,
    table_5,
    table_6,
)
from terralean.cost.macs import Macs, count_macs_at, parameters
from terralean.models import MODELS, create, lemevit
from terralean.models.lemevit import LeMeViT, LeMeViTConfig
from terralean.models.pyramid import pyramid
from terralean.models.timm_names import RIVALS

SEVEN_BLOCKS = "lemevit_tiny_d7"
CONFIGS: dict[str, Callable[[], LeMeViTConfig]] = {
    "lemevit_tiny": lemevit.tiny,
    "lemevit_small": lemevit.small,
    "lemevit_base": lemevit.base,
    SEVEN_BLOCKS: lemevit.tiny_d7,
}
SPEED = (
    "of one RTX 4090 at batch 256; on a GPU of yours: terralean benchmark lemevit imagenet-peers scene-peers "
    "--device cuda --precision fp16 --batch 256{train}"
)
DATA = {
    IMAGENET: "needs ImageNet-1K and 300 epochs of training",
    MILLION_AID: "needs MillionAID, whose labels of this split were never published, and 100 epochs of training",
    DOTA: "not trained here: needs DOTA-v1.0 and its evaluation server",
    POTSDAM: "needs the Potsdam data set and 80,000 steps of training: recipes potsdam_lemevit_*_upernet",
    CDD: "not trained here: needs the CDD data set",
}
NOT_BUILT = {
    "PaCa": "PaCa-ViT (Grainger et al. 2023) is not in timm and not built here: none of the paper's claimed ratios rests on it",
    "FLatten": "FLatten (Han et al. 2023) is not in timm and not built here: none of the paper's claimed ratios rests on it",
}
NO_MAPS = "ViTAEv2-S is built as a classifier only, without the feature maps that this network reads"
SWIN_MAP = "the repository of these baselines gives 75.68 for Swin-T; 76.50 is its ResNet-50's"
CARRIED = "inferred: with what the authors' backbone carries although no map depends on it"
READ = "inferred: with keys and values that the authors compute in S2 and nobody reads; the paper's counter also counts norms"
DETECTOR = "inferred: the backbone counted here and Oriented R-CNN by formula"
CHANGE = "inferred: the backbone for two dates counted here and BIT by formula"
SEVEN = "of the earlier tiny with 7 blocks in S3"
EIGHT = "with 8 blocks in S3, whereas the published parameters are those of 7"
SELF_ATTENTION = (
    "inferred: 12 N D^2 + 2 N^2 D, table 2, with N = 3136 tokens at 224 px; measured: one block more in S1, so its positional "
    "convolution and the meta tokens are in it"
)
DUAL_ATTENTION = (
    "inferred: 12 (N + M) D^2 + 2 N M D, table 2; measured: one block more in S1, so its positional convolution and both "
    "directions of attention, 4 N M D, are in it"
)
PRODUCTS = "the table counts 2 N M D for two attentions, which take 4 N M D"
WITH_ATTENTION = {
    "biformer_tiny": "with the products of attention 2.22 G: it seems to be the BiFormer paper's own count, which has them"
}
FIRST_GRID_PX = 4
ALL_SELF: Literal["CSSSS"] = "CSSSS"  # LeMeViT with self-attention in place of dual cross-attention


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One published number beside ours."""

    table: int
    row: str  # as the paper calls it
    model: str | None  # its name here; None: not built
    setting: str
    quantity: str
    unit: str
    published: str  # as printed
    measured: float | None = None
    inferred: float | None = None
    agrees: bool | None = None  # whether what is measured is what is printed, to its last digit
    difference_percent: float | None = None  # of measured against published
    remark: str | None = None  # how it was inferred, why it differs, or why nothing was measured


def ledger(*, progress: Callable[[int, int], None] | None = None) -> list[Entry]:
    """All entries, table by table. `progress` is told (done, total)."""
    printed = [*table_3(), *table_4(), *table_5(), *table_6()]
    entries = list(_table_2())
    for done, one in enumerate(printed, start=1):
        entries.append(_entry(one))
        if progress:
            progress(done, len(printed))
    return entries


def _entry(printed: Printed) -> Entry:
    found = _found(printed)
    entry = Entry(
        table=printed.table,
        row=printed.row,
        model=printed.model,
        setting=printed.setting.words,
        quantity=printed.quantity.name,
        unit=printed.quantity.unit,
        published=printed.text,
    )
    return _compared(replace(entry, measured=found.measured, inferred=found.inferred, remark=found.remark))


def _compared(entry: Entry) -> Entry:
    if entry.measured is None:
        return entry
    published, decimals = float(entry.published), len(entry.published.partition(".")[2])
    agrees = round(entry.measured, decimals) == published
    difference = round(100 * (entry.measured / published - 1), 2)
    # A classifier's remark explains a difference; where there is none, there is nothing to explain.
    remark = None if agrees and entry.remark in WITH_ATTENTION.values() else entry.remark
    return replace(entry, agrees=agrees, difference_percent=difference, remark=remark)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ours:
    measured: float | None = None
    inferred: float | None = None
    remark: str | None = None  # why it was not measured, how it was inferred, or what explains a difference


def _found(printed: Printed) -> _Ours:
    if printed.quantity not in (PARAMETERS, MACS):
        return _Ours(remark=_why_not_measured(printed))
    if printed.model is None:
        return _Ours(remark=NOT_BUILT[printed.row.partition("-")[0]])
    if printed.table == 5 and printed.model in RIVALS:  # noqa: PLR2004 - the table of dense prediction
        return _Ours(remark=NO_MAPS)
    try:
        return _counted(printed, printed.model)
    except FOREIGN as error:
        return _Ours(remark=f"it could not be counted: {first_line(error)}")


def _why_not_measured(printed: Printed) -> str:
    if printed.quantity in (INFERENCE, INFERENCE_MEMORY):
        return SPEED.format(train="")
    if printed.quantity in (TRAINING, TRAINING_MEMORY):
        return SPEED.format(train=" --train")
    doubtful = printed.setting == DOTA and printed.text == "76.50"
    return "; ".join([DATA[printed.setting], *([SWIN_MAP] if doubtful else [])])


def _counted(printed: Printed, model: str) -> _Ours:
    if printed.setting == DOTA:
        return _detector(model, printed)
    if printed.setting == POTSDAM:
        return _segmenter(model, printed)
    if printed.setting == CDD:
        return _change(model, printed)
    tokens = int(printed.row.split()[0]) if printed.table == 6 else None  # noqa: PLR2004 - the table of meta tokens
    size, macs = _classifier(model, printed.setting, meta_tokens=tokens)
    return _Ours(measured=_in_units(size, macs.layers, printed), remark=WITH_ATTENTION.get(model))


def _in_units(parameters: int, macs: int, printed: Printed) -> float:
    return parameters / 1e6 if printed.quantity == PARAMETERS else macs / 1e9


@cache
def _classifier(model: str, setting: Setting, *, meta_tokens: int | None) -> tuple[int, Macs]:
    given: dict[str, Any] = {} if meta_tokens is None else {"meta_tokens": meta_tokens}
    with torch.device("meta"):
        built = timm.create_model(model, num_classes=setting.classes, **given)
    return parameters(built), count_macs_at(built, (1, 3, setting.size_px, setting.size_px))


def _segmenter(model: str, printed: Printed) -> _Ours:
    built, macs = _upernet(model, printed.setting)
    measured = _in_units(parameters(built), macs.layers, printed)
    if model not in OURS:
        return _Ours(measured=measured)
    if printed.quantity == PARAMETERS:
        carried = _carried(model) - parameters(built.get_submodule("backbone"))
        return _Ours(measured=measured, inferred=measured + carried / 1e6, remark=CARRIED)
    return _Ours(measured=measured, inferred=measured + _unread(model, printed.setting.size_px) / 1e9, remark=READ)


@cache
def _upernet(model: str, setting: Setting) -> tuple[nn.Module, Macs]:
    own = f"{model}_upernet"
    with torch.device("meta"):
        if own in MODELS:
            built = create(own, bands=3, classes=setting.classes)
        else:
            built = create("upernet", bands=3, classes=setting.classes, backbone=model)
    return built, count_macs_at(built, (1, 3, setting.size_px, setting.size_px))


def _detector(model: str, printed: Printed) -> _Ours:
    channels, macs = _maps(model, printed.setting.size_px)
    head = heads.oriented_rcnn(channels)
    total = head.macs + macs.layers + _unread(model, printed.setting.size_px)
    # Four norms of the authors' backbone are built and never used.
    size = head.parameters + 2 * sum(channels) + _carried(model) if model in OURS else 0
    return _Ours(inferred=_in_units(size, total, printed), remark=DETECTOR)


def _change(model: str, printed: Printed) -> _Ours:
    seven = model == "lemevit_tiny" and printed.quantity == PARAMETERS
    channels, macs = _maps(model, printed.setting.size_px)
    head = heads.bit(channels[2])
    total = head.macs + 2 * (macs.layers + _unread(model, printed.setting.size_px))
    size = head.parameters + _carried(SEVEN_BLOCKS if seven else model) if model in OURS else 0
    more = ([SEVEN] if seven else []) + ([EIGHT] if model == "lemevit_tiny" and not seven else [])
    return _Ours(inferred=_in_units(size, total, printed), remark="; ".join([CHANGE, *more]))


@cache
def _maps(model: str, size_px: int) -> tuple[tuple[int, ...], Macs]:
    """Channels and MACs of a backbone for dense prediction."""
    with torch.device("meta"):
        body = pyramid(model, bands=3, drop_path=0.0)
    return tuple(body.feature_info.channels()), count_macs_at(body, (1, 3, size_px, size_px))


@cache
def _carried(model: str) -> int:
    """Parameters of the authors' backbone for dense prediction: all of the classifier but its last layer."""
    with torch.device("meta"):
        return parameters(LeMeViT(replace(CONFIGS[model](), classes=0)))


def _unread(model: str, size_px: int) -> int:
    """MACs of keys and values of image tokens in the authors' last block of S2, for meta tokens that nobody reads."""
    return 2 * (size_px // 8) ** 2 * CONFIGS[model]().dims[2] ** 2 if model in CONFIGS else 0


# Table 2: what a block costs by formula, and section 3.4, which puts in the first block's numbers.


def _table_2() -> Iterator[Entry]:
    for model, printed in FIRST_BLOCKS.items():
        config = CONFIGS[model]()
        tokens, meta, dim = (IMAGENET.size_px // FIRST_GRID_PX) ** 2, config.meta_tokens, config.dims[1]
        with_self, with_dual = _first_block(replace(config, stages=ALL_SELF)), _first_block(config)
        formulas = {
            "self-attention": (12 * tokens * dim**2 + 2 * tokens**2 * dim, with_self, SELF_ATTENTION),
            "dual cross-attention": (12 * (tokens + meta) * dim**2 + 2 * tokens * meta * dim, with_dual, DUAL_ATTENTION),
        }
        for text, (kind, (formula, block, remark)) in zip(printed, formulas.items(), strict=True):
            entry = _first(model, f"first block with {kind}, MACs", text, measured=block.total, inferred=formula, remark=remark)
            yield _compared(entry)
        products = "products of dual cross-attention, MACs"
        formula = 2 * tokens * meta * dim
        yield _first(model, products, "2NMD", measured=with_dual.attention, inferred=formula, remark=PRODUCTS)


def _first(model: str, quantity: str, published: str, *, measured: int, inferred: int, remark: str) -> Entry:
    return Entry(
        table=2,
        row=f"LeMeViT-{model.partition('_')[2].capitalize()}",
        model=model,
        setting=IMAGENET.words,
        quantity=quantity,
        unit="G",
        published=published,
        measured=measured / 1e9,
        inferred=inferred / 1e9,
        remark=remark,
    )


@cache
def _first_block(config: LeMeViTConfig) -> Macs:
    """One block of S1, as the difference that it makes to the model."""
    fewer = replace(config, depths=(config.depths[0], config.depths[1] - 1, *config.depths[2:]))
    with torch.device("meta"):
        full, short = (count_macs_at(LeMeViT(one), (1, 3, IMAGENET.size_px, IMAGENET.size_px)) for one in (config, fewer))
    return Macs(layers=full.layers - short.layers, attention=full.attention - short.attention)

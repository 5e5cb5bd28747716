"""What `terralean evaluate` prints of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

LAYERS_TOLD = 3  # of a method of token reduction in a table


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What is printed of an evaluation, by its names there."""

    overall: tuple[str, ...]
    of_class: str
    compared: tuple[str, ...]  # between runs; the first says which is ahead
    pieces: str  # that are predicted in a second


SHOWN = {
    "segmentation": Shown(
        overall=("mIoU", "OA", "mF1", "AA", "kappa"), of_class="IoU", compared=("mIoU", "OA", "mF1"), pieces="windows"
    ),
    "change": Shown(
        overall=("mIoU", "OA", "mF1", "AA", "kappa"), of_class="F1", compared=("mF1", "OA", "mIoU"), pieces="windows"
    ),
    "classification": Shown(
        overall=("OA", "top5", "AA", "mF1", "kappa"), of_class="F1", compared=("OA", "AA", "mF1"), pieces="images"
    ),
    "detection": Shown(
        overall=("mAP@0.5 (VOC07)", "mAP@0.5 (area)", "mAP@0.5:0.95 (VOC07)", "mAP@0.5:0.95 (area)"),
        of_class="AP@0.5 (VOC07)",
        compared=("mAP@0.5 (VOC07)",),
        pieces="windows",
    ),
    "spectral": Shown(
        overall=("OA", "AA", "kappa", "mF1", "mIoU"), of_class="recall", compared=("OA", "AA", "kappa"), pieces="pixels"
    ),
}


def score_table(document: dict[str, Any]) -> Table:
    """Overall scores and those of classes, with intervals, and the spread between seeds where there are several."""
    several, shown = len(document["seeds"]) > 1, SHOWN[document["task"]]
    table = Table("score", "value", *(["± seeds"] if several else []), "95 % interval", box=None, pad_edge=False)
    named = [(name, document[name]) for name in shown.overall if name in document]
    classes = [(f"{shown.of_class} {escape(entry['name'])}", entry[shown.of_class]) for entry in document["classes"]]
    for name, entry in [*named, *classes]:
        spread = [] if not several else ["-" if entry["sd"] is None else f"{entry['sd']:.3f}"]
        table.add_row(name, _value(entry), *spread, _range(entry))
    first = shown.compared[0]
    for seed in document["seeds"]:
        table.add_row(f"{first} seed {seed['seed']}", _value(seed[first]), *([""] if several else []), _range(seed[first]))
    return table


def run_table(document: dict[str, Any]) -> Table:
    """Runs on the same pixels or images, and by how much the first one is ahead of each."""
    names = SHOWN[document["task"]].compared
    table = Table("run", *names, f"ahead in {names[0]} by", "95 % interval", box=None, pad_edge=False)
    for entry in [document | document["run"], *document["against"]]:
        ahead = entry.get("difference", {}).get(names[0])
        table.add_row(
            escape(entry["folder"]),
            *(_value(entry[name]) for name in names),
            *(("", "") if ahead is None or ahead["value"] is None else (f"{ahead['value']:+.3f}", _range(ahead))),
        )
    return table


def noise_table(document: dict[str, Any]) -> Table:
    """Scores of each run at every amount of noise, and how they differ from those of clean images."""
    names, reduced = SHOWN[document["task"]].compared, is_reduced(document)
    more = ("G operations", "tokens left") if reduced else ()
    table = Table("run", "noisy pixels", *names, f"change of {names[0]}", "95 % interval", *more, box=None, pad_edge=False)
    for entry in [document | document["run"], *document["against"]]:
        for level in entry["noise"]["levels"]:
            change, found = None if level["change"] is None else level["change"][names[0]], level.get("reduction")
            cost = ("", "") if found is None else (f"{found['operations']['mean'] / 1e9:.4g}", _left(found))
            table.add_row(
                escape(entry["folder"]),
                str(level["pixels"]),
                *(_value(level[name]) for name in names),
                *(("", "") if change is None or change["value"] is None else (f"{change['value']:+.3f}", _range(change))),
                *(cost if reduced else ()),
            )
    return table


def curve_table(document: dict[str, Any]) -> Table:
    """What accuracy the run gives up for speed: its validation split at several settings, its own setting first."""
    rows = document["curve"]["rows"]
    names = ("overlap px", "precision", "token reduction", rows[0]["score"], "95 % interval", "change", "95 % interval", "time")
    table = Table(*names, box=None, pad_edge=False)
    for i, row in enumerate(rows):
        method = "none" if row["reduce"] is None else row["reduce"]["method"]
        kept = [] if row["reduce"] is None else [f"{share:g}" for share in row["reduce"].get("shares", ())]
        change = ("", "") if i == 0 else (f"{row['change']['value']:+.3f}", _known(row["change"]))
        table.add_row(
            *(str(row["overlap_px"]), row["precision"], " ".join([method, *kept])),
            *(f"{row['value']:.3f}", _known(row), *change, f"{row['relative_cost']:.2f}"),
        )
    return table


def is_reduced(document: dict[str, Any]) -> bool:
    """Whether any of the runs takes tokens out or merges them."""
    return any("reduction" in entry for entry in (document, *document["against"]))


def reduction_table(document: dict[str, Any]) -> Table:
    """What windows cost in runs that take tokens out or merge them, and in the same networks without that."""
    table = Table("run", box=None, pad_edge=False)
    for name in ("reduce", "windows", "G operations", "p5 .. p95", "without", "share", "tokens left", "windows/s"):
        table.add_column(name, no_wrap=True)
    for entry in [document | document["run"], *document["against"]]:
        found, speed = entry.get("reduction"), f"{entry['cost']['windows_per_s']:.3g}"
        if found is None:
            table.add_row(escape(entry["folder"]), "none", "", "", "", "", "", "", speed)
            continue
        mean, low, high, dense = (found["operations"][key] / 1e9 for key in ("mean", "p5", "p95", "dense"))
        table.add_row(
            escape(entry["folder"]),
            entry["reduce"]["method"],
            str(found["windows"]),
            f"{mean:.4g}",
            f"{low:.4g} .. {high:.4g}",
            f"{dense:.4g}",
            f"{mean / dense:.1%}",
            _left(found),
            speed,
        )
    return table


def _left(reduction: dict[str, Any]) -> str:
    """Tokens after each layer, mean and percentiles where windows differ; of many layers the first and the last one."""
    layers = reduction["left"]
    shown = layers if len(layers) <= LAYERS_TOLD else [layers[0], layers[-1]]
    ranges = ["" if one["p5"] == one["p95"] else f" ({one['p5']:.1%} .. {one['p95']:.1%})" for one in shown]
    return ", ".join(f"{one['mean']:.1%}{between} after {one['layer']}" for one, between in zip(shown, ranges, strict=True))


def cost_table(document: dict[str, Any]) -> Table:
    """What the runs cost."""
    pieces = SHOWN[document["task"]].pieces
    table = Table("run", "model", "parameters", "GMACs", f"{pieces}/s", "training", box=None, pad_edge=False)
    for entry in [document | document["run"], *document["against"]]:
        cost = entry["cost"]
        table.add_row(
            escape(entry["folder"]),
            entry["model"],
            f"{cost['nodes'] / 1e6:.3g} M nodes" if cost["nodes"] else f"{cost['parameters'] / 1e6:.3g} M",
            "-" if cost["macs"] is None else f"{cost['macs'] / 1e9:.3g}",
            f"{cost[f'{pieces}_per_s']:.3g}",
            f"{cost['training_minutes']:.1f} min",
        )
    return table


def _value(entry: dict[str, Any]) -> str:
    return "-" if entry["value"] is None else f"{entry['value']:.3f}"


def _known(entry: dict[str, Any]) -> str:
    return "-" if entry["low"] is None else _range(entry)


def _range(entry: dict[str, Any]) -> str:
    return f"{entry['low']:.3f} .. {entry['high']:.3f}" if "low" in entry else "-"

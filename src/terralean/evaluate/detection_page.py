"""The page an analyst reads after a detector of oriented boxes was evaluated; see `report` for that on maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from terralean.evaluate import compare, page
from terralean.evaluate.detection_figures import SURE, Overlay
from terralean.evaluate.intervals import Interval
from terralean.tasks.detection_scores import FIELD_NAMES, PER_SET


def render(document: Mapping[str, Any], overlays: Sequence[Overlay], *, recipe: str, date: str) -> str:
    """The page as one HTML document that loads nothing, of what evaluation.json holds."""
    leakage = document["leakage"]
    leaks = None if leakage is None else leakage.startswith("LEAKS")
    values = {
        "title": f"{document['run']['model']} on {document['data']}",
        "date": date,
        "verdict": document["verdict"],
        "badge": page.HEADLINES[leaks],
        "leakage": leakage
        or "Other data than the run's own: whether they share ground with the training images was not checked.",
        "about": tuple(document["about"].items()),
        "note": document["intervals"],
        "rows": [{"name": name, **_cells(document[name])} for name in (FIELD_NAMES[key] for key in PER_SET)],
        "classes": [_class_row(entry) for entry in document["classes"]],
        "seeds": [_seed_row(entry) for entry in document["seeds"]],
        "against": [_other_row(entry) for entry in document["against"]],
        "headline": HEADLINE,
        "overlays": overlays,
        "sure": SURE,
        "recipe": recipe,
    }
    return page.fill("detection_report.html.j2", values, too_large="leave the recipe's lists out")


HEADLINE = FIELD_NAMES["map50_voc07"]


def _seed_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"seed": entry["seed"], **_cells(entry[HEADLINE])}


def _other_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    apart = entry["difference"][HEADLINE]
    known = Interval(low=apart["low"], high=apart["high"]) if "low" in apart else None
    ahead = page.NOTHING if apart["value"] is None else compare.points(apart["value"], signed=True, like=known)
    between = "" if known is None else compare.span(known)
    return {"name": entry["folder"], "model": entry["model"], "ahead": ahead, "between": between, **_cells(entry[HEADLINE])}


def _class_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    area = _cells(entry[FIELD_NAMES["ap50_area"]])
    return {
        "name": entry["name"],
        "voc07": _cells(entry[FIELD_NAMES["ap50_voc07"]])["value"],
        "area": area["value"],
        "range": area["range"],
        "recall": _cells(entry[FIELD_NAMES["recall50"]])["value"],
        "objects": entry["objects"],
        "difficult": entry["difficult"],
        "found": entry["detections"],
    }


def _cells(entry: Mapping[str, float | None]) -> dict[str, str]:
    value = math.nan if entry["value"] is None else entry["value"]
    low, high = entry.get("low"), entry.get("high")
    known = None if low is None or high is None else Interval(low=low, high=high)
    return {"value": page.number(value), "range": page.bounds(known)}

"""What all processes that train together must have alike, by the name that a user knows it by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import terralean
from terralean.train.config import sections
from terralean.train.experiments import AnyExperiment
from terralean.train.material import Material


def settings(experiment: AnyExperiment) -> dict[str, object]:
    """What they are told."""
    return {"version of terralean": terralean.__version__} | _flat(sections(experiment))


def seen(material: Material, *, state: Path) -> dict[str, object]:
    """What they find."""
    normalisation = material.normalisation
    return {
        "classes": ", ".join(material.classes.names),
        "bands": ", ".join(material.bands.names),
        "training data": material.fingerprint,
        "counts of the classes": material.class_counts,
        # In few digits: processors may differ in the last.
        "means and deviations of the bands": ", ".join(f"{v:.4g}" for v in (*normalisation.mean, *normalisation.std)),
        "split": material.split,
        "validation samples": 0 if material.validation is None else len(material.validation),
        str(state): "there" if state.is_file() else "not there",
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """A recipe's values by their names, such as train.lr."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat

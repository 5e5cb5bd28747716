"""What processes that train together, or go on with a run, must have alike, by the name that a user knows it by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import terralean
from terralean.train.config import plain, sections
from terralean.train.experiments import AnyExperiment
from terralean.train.material import Material


def settings(experiment: AnyExperiment) -> dict[str, object]:
    """What they are told."""
    return {"version of terralean": terralean.__version__} | _flat(sections(experiment))


def seen(material: Material, *, state: Path) -> dict[str, object]:
    """What they find."""
    return facts(material) | {str(state): "there" if state.is_file() else "not there"}


def facts(material: Material) -> dict[str, object]:
    """What the data hold."""
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
    }


def continues(before: object, experiment: AnyExperiment) -> bool:
    """Whether a recipe as it was written is this experiment's, but for settings that came later and are at their defaults."""
    return isinstance(before, Mapping) and _as_before(before, experiment)


def _as_before(before: Mapping[str, Any], now: Any) -> bool:
    known = {field.name: field for field in fields(now)}
    return before.keys() <= known.keys() and all(
        _same(before[name], getattr(now, name)) if name in before else getattr(now, name) == _default(field)
        for name, field in known.items()
    )


def _same(before: Any, now: Any) -> bool:
    if is_dataclass(now):
        return isinstance(before, Mapping) and _as_before(before, now)
    return bool(before == plain(now))


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """A recipe's values by their names, such as train.lr."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat

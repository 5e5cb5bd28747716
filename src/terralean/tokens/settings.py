"""What of a method is not its default, as the command line takes it."""

from __future__ import annotations

from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from typing import Any

from terralean.tokens import Reduction


def settings(reduce: Reduction) -> tuple[str, ...]:
    """`key=value` of each setting that is not the default, as `--set reduce.key=value` takes it; the method is left out."""
    given = ((field, getattr(reduce, field.name)) for field in fields(reduce))
    return tuple(f"{field.name}={_written(value)}" for field, value in given if value != _default(field))


def words(reduce: Reduction | None) -> str:
    """A method and its settings, "none" for none."""
    return "none" if reduce is None else " ".join((reduce.method, *settings(reduce)))


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _written(value: Any) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        return "{" + ", ".join(f"{key}: {inner}" for key, inner in asdict(value).items()) + "}"
    return "[" + ",".join(map(_written, value)) + "]" if isinstance(value, list | tuple) else str(value)

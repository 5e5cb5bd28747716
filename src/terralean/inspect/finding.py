"""Something worth saying about what was inspected, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """An error stops training or mapping, a warning spoils the result, a note is good to know."""

    severity: Severity
    message: str
    fix: str | None = None  # None where the message says it, or nothing need be done


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then notes; each in the order of finding."""
    return tuple(sorted(findings, key=lambda finding: ORDER.index(finding.severity)))

"""How lists are told in errors and reports."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 5


def listed(items: Sequence[str]) -> str:
    """At most five of them, and how many more there are."""
    more = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """As many of a thing: 1 image, 2 images."""
    return f"{number} {noun}" + "s" * (number != 1)

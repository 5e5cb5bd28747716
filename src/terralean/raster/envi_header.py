"""The text of an ENVI header (.hdr): `name = value`, braces that may span lines, `;` before a comment.

Source: "ENVI Header Files" in the manual of ENVI (NV5 Geospatial). Names are compared without regard to case, spaces and
underlines, which vary among the programs that write them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from terralean.errors import UnreadableScene

FIRST_LINE = "ENVI"
LINE_WIDTH = 120
LARGEST = 2**53  # whole number that a header tells, as any larger float is one


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a header says, by name as it is written, and by name without spaces in lower case."""

    path: str
    fields: Mapping[str, str]
    remarks: tuple[str, ...] = ()  # what is odd about the text
    _known: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_known", {plain(name): value for name, value in self.fields.items()})

    def __contains__(self, name: str) -> bool:
        return bool(self._known.get(plain(name), ""))

    def text(self, name: str) -> str | None:
        """The value without braces; None where it is missing or empty."""
        return self._known.get(plain(name)) or None

    def whole(self, name: str) -> int | None:
        """A whole number. Raises UnreadableScene where it is none."""
        found = self.number(name)
        if found is not None and (not abs(found) <= LARGEST or found != int(found)):
            raise self.wrong(name, "a whole number")
        return None if found is None else int(found)

    def number(self, name: str) -> float | None:
        """A number. Raises UnreadableScene where it is none."""
        text = self.text(name)
        if text is None:
            return None
        try:
            return float(text)
        except ValueError as error:
            raise self.wrong(name, "a number") from error

    def numbers(self, name: str) -> list[float]:
        """Numbers between commas; none where it is missing. Raises UnreadableScene where one is no number."""
        items = [item for item in self.items(name) if item]
        try:
            return [float(item) for item in items]
        except ValueError as error:
            raise self.wrong(name, "numbers between commas") from error

    def finite(self, name: str) -> list[float]:
        """`numbers` of which none may be NaN or infinite."""
        found = self.numbers(name)
        if not all(map(math.isfinite, found)):
            raise self.wrong(name, "finite numbers between commas")
        return found

    def items(self, name: str) -> list[str]:
        """Texts between commas; none where it is missing."""
        text = self.text(name)
        return [] if text is None else [" ".join(item.split()) for item in text.split(",")]

    def wrong(self, name: str, expected: str) -> UnreadableScene:
        """The error for a value that cannot be."""
        found = " ".join((self.text(name) or "").split())
        shown = found if len(found) <= LINE_WIDTH else f"{found[:LINE_WIDTH]}..."
        return UnreadableScene(f"{self.path}: {name} is {shown or 'empty'}; expected {expected}; correct the header")


def plain(name: str) -> str:
    """A name as names are compared."""
    return re.sub(r"[\s_]+", "", name).lower()


def is_header(path: Path) -> bool:
    """Whether a file begins as ENVI headers do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(len(FIRST_LINE) + 4).removeprefix(b"\xef\xbb\xbf")
    return start[: len(FIRST_LINE)] == FIRST_LINE.encode() and start[len(FIRST_LINE) : len(FIRST_LINE) + 1] in (
        b"\n",
        b"\r",
        b" ",
        b"\t",
    )


def read_header(path: Path) -> Header:
    """Raises UnreadableScene where the text is no header, or breaks off within braces."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # older programs write names in the code page of Windows
    if not is_header(path):
        raise UnreadableScene(f"{path} is no ENVI header: its first line is {text[:40].splitlines()[:1]}, not {FIRST_LINE}")
    fields: dict[str, str] = {}
    remarks = []
    for name, value in _entries(text.splitlines()[1:], str(path)):
        twice = next((known for known in fields if plain(known) == plain(name)), None)
        if twice is not None:
            if fields[twice] != value:
                remarks.append(f"the header says {name} twice; the last one counts")
            del fields[twice]
        fields[name] = value
    return Header(path=str(path), fields=fields, remarks=tuple(remarks))


def _entries(lines: Sequence[str], path: str) -> Iterator[tuple[str, str]]:
    numbered = ((number, line) for number, line in enumerate(lines, 2) if line.strip() and not line.lstrip().startswith(";"))
    for number, line in numbered:
        name, equals, value = line.partition("=")
        if not equals:
            continue
        value = value.strip()
        if value.startswith("{"):
            while "}" not in value:
                _, more = next(numbered, (0, None))
                if more is None:
                    raise UnreadableScene(
                        f"{path} breaks off: the brace of {name.strip()!r} in line {number} is not closed; copy it again"
                    )
                value += f"\n{more}"
            value = value[1 : value.rindex("}")]
        yield " ".join(name.split()), value.strip()


def write_header(fields: Mapping[str, str | Sequence[str]]) -> str:
    """The text of a header; sequences in braces, several to a line."""
    lines = [FIRST_LINE]
    for name, value in fields.items():
        lines.append(f"{name} = {value if isinstance(value, str) else _braced(value)}")
    return "\n".join(lines) + "\n"


def _braced(items: Iterable[str]) -> str:
    lines, line = [], ""
    for item in items:
        if line and len(line) + len(item) + 2 > LINE_WIDTH:
            lines.append(line)
            line = ""
        line += f"{', ' if line else ''}{item}"
    text = ",\n ".join([*lines, line])
    return f"{{{text}}}" if not lines else f"{{\n {text}}}"

"""Published label conventions by name: only so that an error or a note can propose the settings that fit.

What is read follows from the recipe alone. ISPRS Potsdam is published in colours; most papers number its six classes 0 to 5,
mmsegmentation's converter writes 0 for the black boundary and 1 to 6 (LeMeViT's recipe leaves out the last, clutter).
LoveDA is published as 0 (no data) and 1 to 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from terralean.raster.coding import Colour, as_hex


@dataclass(frozen=True, kw_only=True, slots=True)
class Familiar:
    """Numbers of a published set of labels."""

    name: str
    values: tuple[int, ...]
    ignored: tuple[int, ...]


NUMBERS = (
    Familiar(
        name="ISPRS Potsdam as most papers number it (0 to 4 the classes, 5 clutter)",
        values=(0, 1, 2, 3, 4),
        ignored=(5,),
    ),
    Familiar(
        name="ISPRS Potsdam as mmseg's converter writes it (0 boundary, 1 to 5 the classes, 6 clutter)",
        values=(1, 2, 3, 4, 5),
        ignored=(0, 6),
    ),
    Familiar(name="LoveDA (0 no data, 1 to 7 the classes)", values=(1, 2, 3, 4, 5, 6, 7), ignored=(0,)),
)
POTSDAM: dict[Colour, str] = {
    (255, 255, 255): "impervious surface",
    (0, 0, 255): "building",
    (0, 255, 255): "low vegetation",
    (0, 255, 0): "tree",
    (255, 255, 0): "car",
}
POTSDAM_IGNORED: dict[Colour, str] = {(255, 0, 0): "clutter", (0, 0, 0): "boundary"}
ENOUGH = 3  # colours of Potsdam that tell it


def settings(lists: Mapping[str, Sequence[object]]) -> str:
    """Lists of the section `data` as they are set on the command line. Colours are quoted: in YAML # begins a comment."""
    told = {name: [f"'{v}'" if str(v).startswith("#") else str(v) for v in values] for name, values in lists.items()}
    return " ".join(f'--set "data.{name}=[{", ".join(values)}]"' for name, values in told.items())


def familiar_numbers(values: Sequence[int], ignored: Sequence[int]) -> str:
    """Whose labels have these classes and ignored numbers; empty where nobody's."""
    return next((one.name for one in NUMBERS if (one.values, one.ignored) == (tuple(values), tuple(sorted(ignored)))), "")


def familiar_set(numbers: Iterable[int]) -> Familiar | None:
    """The published labels that hold exactly these numbers."""
    found = set(numbers)
    return next((one for one in NUMBERS if {*one.values, *one.ignored} == found), None)


def familiar_colours(colours: Iterable[Colour]) -> str:
    """What to set where the colours are those of a published set; empty where they are not."""
    found = set(colours)
    if len(found & POTSDAM.keys()) < ENOUGH or not found <= {*POTSDAM, *POTSDAM_IGNORED}:
        return ""
    mine, others = ([as_hex(colour) for colour in part] for part in (POTSDAM, POTSDAM_IGNORED))
    told = settings({"classes": [*POTSDAM.values()], "colours": mine, "ignore": others})
    return f"; they are those of ISPRS Potsdam: {told} (clutter and boundary are ignored)"

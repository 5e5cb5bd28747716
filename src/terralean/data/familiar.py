"""Published label conventions by name: only so that an error or a note can propose the settings that fit.

What is read follows from the recipe alone. ISPRS Potsdam is published in colours; most papers number its six classes 0 to 5,
mmsegmentation's converter writes 0 for the black boundary and 1 to 6, GeoSeg 0 to 5 and 6 for the boundary (LeMeViT's recipe
leaves clutter out, MATP's scores hold it). LoveDA is published as 0 (no data) and 1 to 7, with colours for figures only;
Five-Billion-Pixels as 0 (unlabelled) and 1 to 24, and as colours.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """Colours of a published set of labels."""

    name: str
    classes: dict[Colour, str]
    ignored: dict[Colour, str]


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
    Familiar(
        name="ISPRS Potsdam as GeoSeg numbers it (0 to 4 the classes, 5 clutter, 6 boundary)",
        values=(0, 1, 2, 3, 4),
        ignored=(5, 6),
    ),
    Familiar(
        name="ISPRS Potsdam as mmseg's converter writes it (0 boundary, 1 to 6 the classes with clutter)",
        values=(1, 2, 3, 4, 5, 6),
        ignored=(0,),
    ),
    Familiar(
        name="ISPRS Potsdam as GeoSeg numbers it (0 to 5 the classes with clutter, 6 boundary)",
        values=(0, 1, 2, 3, 4, 5),
        ignored=(6,),
    ),
    Familiar(name="LoveDA (0 no data, 1 to 7 the classes)", values=(1, 2, 3, 4, 5, 6, 7), ignored=(0,)),
    Familiar(name="Five-Billion-Pixels (0 unlabelled, 1 to 24 the classes)", values=tuple(range(1, 25)), ignored=(0,)),
)
POTSDAM = Palette(
    name="ISPRS Potsdam",
    classes={
        (255, 255, 255): "impervious surface",
        (0, 0, 255): "building",
        (0, 255, 255): "low vegetation",
        (0, 255, 0): "tree",
        (255, 255, 0): "car",
    },
    ignored={(255, 0, 0): "clutter", (0, 0, 0): "boundary"},
)
LOVEDA = Palette(
    name="LoveDA",
    classes={
        (255, 255, 255): "background",
        (255, 0, 0): "building",
        (255, 255, 0): "road",
        (0, 0, 255): "water",
        (159, 129, 183): "barren",
        (0, 255, 0): "forest",
        (255, 195, 128): "agricultural",
    },
    ignored={(0, 0, 0): "no data"},
)
FIVE_BILLION = Palette(
    name="Five-Billion-Pixels",
    classes={
        (200, 0, 0): "industrial area",
        (0, 200, 0): "paddy field",
        (150, 250, 0): "irrigated field",
        (150, 200, 150): "dry cropland",
        (200, 0, 200): "garden land",
        (150, 0, 250): "arbor forest",
        (150, 150, 250): "shrub forest",
        (200, 150, 200): "park",
        (250, 200, 0): "natural meadow",
        (200, 200, 0): "artificial meadow",
        (0, 0, 200): "river",
        (250, 0, 150): "urban residential",
        (0, 150, 200): "lake",
        (0, 200, 250): "pond",
        (150, 200, 250): "fish pond",
        (250, 250, 250): "snow",
        (200, 200, 200): "bareland",
        (200, 150, 150): "rural residential",
        (250, 200, 150): "stadium",
        (150, 150, 0): "square",
        (250, 150, 150): "road",
        (250, 150, 0): "overpass",
        (250, 200, 250): "railway station",
        (200, 150, 0): "airport",
    },
    ignored={(0, 0, 0): "unlabelled"},
)
PALETTES = (POTSDAM, LOVEDA, FIVE_BILLION)
ENOUGH = 3  # colours of a palette that tell it


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
    for one in PALETTES:
        if len(found & one.classes.keys()) >= ENOUGH and found <= {*one.classes, *one.ignored}:
            mine, others = ([as_hex(colour) for colour in part] for part in (one.classes, one.ignored))
            told = settings({"classes": [*one.classes.values()], "colours": mine, "ignore": others})
            verb = "are" if len(others) > 1 else "is"
            return f"; they are those of {one.name}: {told} ({' and '.join(one.ignored.values())} {verb} ignored)"
    return ""

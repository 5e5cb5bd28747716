"""Labels that are read without a wrong number or colour, and yet not as they are meant.

OpenCV, and mmsegmentation through it, holds colours as blue, green, red: a table copied from there, or labels written with it,
exchange the two. ISPRS Potsdam's colours are the same set either way, so that nothing fails and cars become low vegetation.
mmsegmentation's and GeoSeg's numbers of Potsdam are one set, too. What is never labelled is sometimes made a class, number 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from terralean.data.config import DataConfig
from terralean.data.deliveries import INDEX_SUFFIX
from terralean.data.familiar import FIVE_BILLION, NUMBERS, POTSDAM, settings
from terralean.data.index import Dataset
from terralean.raster.coding import Colour, as_hex

Counts = Mapping[int | Colour, int]  # pixels of each stored number or colour, over all label rasters
RARE = "car"  # 1.7 % of Potsdam's labels; the rarest of what is common beside it, tree, 15 %
NO_LABEL = {"unlabeled", "unlabelled", "no data", "nodata", "ignore", "ignored", "void", "no label"}


def exchanged_colours(dataset: Dataset, config: DataConfig, counts: Counts) -> str | None:
    """What to say of colours that are not all listed, but are with red and blue exchanged."""
    coding = dataset.coding
    colours = [stored for stored in counts if isinstance(stored, tuple)]
    strange = [colour for colour in colours if not coding.knows(colour)]
    if not strange or not all(coding.knows(_exchanged(colour)) for colour in colours):
        return None
    shown = ", ".join(as_hex(colour) for colour in strange[:3])
    return (
        f"the labels of {dataset.root} hold {shown}, which are no classes, but all their colours are with red and blue "
        f"exchanged: settings or files have them as blue, green, red; {_exchange(dataset, config)}"
    )


def common_cars(dataset: Dataset, config: DataConfig, counts: Counts) -> str | None:
    """What to say of Potsdam's classes where cars are not rare as labels are read, and would be if they were read otherwise."""
    shares = _read(dataset, counts)
    common = [name for name in POTSDAM.classes.values() if name != RARE]
    if not {RARE, *common} <= shares.keys() or not all(shares[name] for name in common):
        return None
    if shares[RARE] < min(shares[name] for name in common):
        return None
    for how, read, fix in _otherwise(dataset, config, counts):
        if all(0 < read.get(RARE, 0) < read.get(name, 0) for name in common):
            total = sum(counts.values())
            return (
                f"{shares[RARE] / total:.0%} of the labels in {dataset.root} are read as {RARE}, more than as one of "
                f"{', '.join(common)}; in ISPRS Potsdam it is the rarest, and so it is {how}: {fix}"
            )
    return None


def unlabelled_class(dataset: Dataset, config: DataConfig, counts: Counts) -> str | None:
    """What to say where what has no label is a class that is trained and scored."""
    names = dataset.classes.names
    if found := [name for name in names if name.lower().replace("_", " ") in NO_LABEL]:
        fix = settings({"ignore": [*config.ignore, *found]})
        return f"{', '.join(found)} is a class that is trained and scored; if it means that there is no label: {fix}"
    index = [source.label for source in dataset.sources if Path(source.label).stem.endswith(INDEX_SUFFIX)]
    if index and 0 in dataset.coding.numbers(len(names)) and counts.get(0) and len(names) == len(FIVE_BILLION.classes) + 1:
        fix = settings({"label_values": range(1, len(names)), "ignore": [0]})
        return (
            f"{len(names)} classes are read from labels such as {index[0]}, which has {len(names) - 1}: 0 is not labelled "
            f"there, and would be trained and scored as {names[0]}; to leave it out: {fix}"
        )
    return None


def _exchanged(colour: Colour) -> Colour:
    red, green, blue = colour
    return blue, green, red


def _exchange(dataset: Dataset, config: DataConfig) -> str:
    """The settings with red and blue exchanged in every colour."""
    mine = [as_hex(_exchanged(colour)) for colour in dataset.coding.colours or ()]
    ignore = [
        f"#{str(item)[5:7]}{str(item)[3:5]}{str(item)[1:3]}" if str(item).startswith("#") else item for item in config.ignore
    ]
    if config.colours is None:
        return settings({"classes": dataset.classes.names, "colours": mine, "ignore": ignore})
    return settings({"colours": mine, "ignore": ignore})


def _read(dataset: Dataset, counts: Counts, *, exchange: bool = False) -> dict[str, int]:
    """Pixels of each class as labels are read, by its name in lower case."""
    colours, numbers = dataset.coding.colours or (), dataset.coding.numbers(len(dataset.classes))
    out: dict[str, int] = {}
    for i, name in enumerate(dataset.classes.names):
        key = numbers[i] if not colours else _exchanged(colours[i]) if exchange else colours[i]
        out[name.lower().replace("_", " ")] = counts.get(key, 0)
    return out


def _otherwise(dataset: Dataset, config: DataConfig, counts: Counts) -> Iterator[tuple[str, dict[str, int], str]]:
    """Other ways to read the same labels: how, the pixels of each class, and what to set."""
    names = [name.lower().replace("_", " ") for name in dataset.classes.names]
    if dataset.coding.colours:
        how = "with red and blue exchanged"
        yield how, _read(dataset, counts, exchange=True), f"if so, {_exchange(dataset, config)}"
        return
    for one in NUMBERS:
        if len(one.values) == len(names) and counts.keys() <= {*one.values, *one.ignored}:
            read = {name: counts.get(value, 0) for name, value in zip(names, one.values, strict=True)}
            fix = settings({"label_values": one.values, "ignore": one.ignored})
            yield f"if the labels are {one.name}", read, f"if so, {fix}"

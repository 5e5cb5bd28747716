"""What any report page is made of: one HTML file that needs nothing else, numbers as its readers see them, and cost."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from terralean.errors import SizeError
from terralean.evaluate.compare import Difference
from terralean.evaluate.figures import Photo, Picture
from terralean.evaluate.intervals import Interval

FOLDER = Path(__file__).parent
STYLE = FOLDER / "report.css"
MAX_BYTES = 3_000_000  # of the page: it goes by mail
NOTHING = "\N{EN DASH}"
SPACE = "\N{NARROW NO-BREAK SPACE}"
AXES = (1, 2, 5, 10, 20, 50, 100)  # points to either side of the axis of differences
HEADLINES = {  # whether training and test overlap: kind, sign and words of the badge
    True: ("bad", "!", "Training and test overlap: expect lower scores on new ground"),
    False: ("good", "\N{CHECK MARK}", "Training and test are kept apart"),
    None: ("unknown", "?", "It is not known whether training and test overlap"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a model costs; None where it was not measured."""

    parameters: int  # 0 of a forest, which has nodes
    nodes: int | None = None
    macs: float | None = None  # multiply-adds for one window of `window_px`, the mean where they differ
    dense_macs: float | None = None  # where tokens are taken out or merged: without that
    window_px: int | None = None
    images_per_s: float | None = None  # windows, or whole images, predicted in a second
    training_minutes: float | None = None
    peak_memory_bytes: int | None = None
    device: str | None = None  # that predicted


def fill(template: str, values: Mapping[str, object], *, too_large: str) -> str:
    """A template as one HTML document that loads nothing; SizeError beyond 3 MB, with what makes it smaller."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "data_uri": _data_uri,
        "glued": _glued,
        "spaced": spaced,
        "breakable": _breakable,
    }
    page = environment.get_template(template).render({**values, "style": STYLE.read_text(encoding="utf-8")})
    size = len(page.encode())
    if size > MAX_BYTES:
        raise SizeError(f"the report is {size / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:.0f}: {too_large}")
    return page


# Numbers in words.


def percent(share: float, digits: int = 1) -> str:
    """A share in percent, a dash where it has no meaning. Never 100.0 % unless it is exactly that."""
    text = number(share, digits)
    return text if text == NOTHING else f"{text}{SPACE}%"


def number(share: float, digits: int = 1) -> str:
    """`percent` without its sign, for tables."""
    if math.isnan(share):
        return NOTHING
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:  # noqa: PLR2004 - rounding must not hide the last errors
        return f"{100 - 10**-digits:.{digits}f}"
    return text


def bounds(interval: Interval | None, *, plain: bool = False) -> str:
    """Both ends in percent without the sign, or as they are; nothing where there is no interval."""
    if interval is None:
        return ""
    low, high = (unscaled(end) if plain else number(end) for end in (interval.low, interval.high))
    return f"{low} to {high}"


def unscaled(value: float) -> str:
    """A score that is no share, kappa say."""
    return NOTHING if math.isnan(value) else f"{value:.3f}"


def spaced(count: int) -> str:
    """A count in groups of three digits."""
    return f"{count:,}".replace(",", SPACE)


def duration(minutes: float) -> str:
    """Minutes, or hours and minutes, or seconds."""
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    hours, rest = divmod(round(minutes), 60)
    return f"{hours} h {rest} min" if hours else f"{minutes:.3g} min"


def short_count(count: int) -> str:
    """A count in four or five characters: 873, 12.4k, 3.1M."""
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}" if count < 100 * size else f"{count / size:.0f}{letter}"
    return str(count)


def _scaled(count: float) -> str:
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:.3g} {word}"
    return spaced(round(count))


def _glued(text: str) -> str:
    """No line break between a number and its percent sign."""
    return text.replace(" %", f"{SPACE}%")


def _breakable(name: str) -> str:
    """A line may break within a name that is written as one word: HerbaceousVegetation, herbaceous_vegetation."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[_/.-])(?=\w)", "\N{ZERO WIDTH SPACE}", name)


def _data_uri(picture: Picture | Photo) -> str:
    kind, content = ("png", picture.png) if isinstance(picture, Picture) else ("jpeg", picture.jpeg)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


# Places for the style sheet.


def bar(value: float, interval: Interval | None) -> dict[str, float]:
    """Places on a track from 0 to 100."""
    low, high = (value, value) if interval is None else (interval.low, interval.high)
    low, high, value = (100 * min(1.0, max(0.0, x)) for x in (low, high, value))
    return {"low": round(low, 2), "width": round(high - low, 2), "value": round(value, 2)}


def places(values: Iterable[float]) -> list[float]:
    """Places of shares on such a track, of those that have a meaning."""
    return [round(100 * min(1.0, max(0.0, value)), 2) for value in values if not math.isnan(value)]


def axis(differences: Sequence[Difference]) -> int:
    """Points to either side that hold all differences and their intervals."""
    ends = [end for d in differences if d.interval is not None for end in (d.interval.low, d.interval.high)]
    most = max((100 * abs(value) for value in (*ends, *(d.value for d in differences)) if not math.isnan(value)), default=0)
    return next((axis for axis in AXES if most <= axis), AXES[-1])


def on_axis(difference: Difference, axis: int) -> dict[str, float] | None:
    """Places from 0 (the other is better by `axis` points) to 100 (this is)."""
    if math.isnan(difference.value):
        return None
    known = difference.interval or Interval(low=difference.value, high=difference.value)
    low, high, value = (round(50 + 50 * 100 * x / axis, 2) for x in (known.low, known.high, difference.value))
    return {"low": low, "width": round(high - low, 2), "value": value}


# Cost.


def cost_cells(cost: Cost) -> dict[str, str]:
    """What a run costs in a row of a table."""
    speed = NOTHING if cost.images_per_s is None else f"{cost.images_per_s:.3g}"
    return {
        "parameters": f"{cost.nodes / 1e6:.3g} M nodes" if cost.nodes else f"{cost.parameters / 1e6:.3g} M",
        "macs": NOTHING if cost.macs is None else f"{cost.macs / 1e9:.3g}",
        "window": "" if cost.window_px is None else f"{cost.window_px} px",
        "speed": speed,
        "device": cost.device or "",
        "training": NOTHING if cost.training_minutes is None else duration(cost.training_minutes),
    }


def cost_rows(cost: Cost, *, trainings: int, piece: str, unit: str, speed: str) -> list[tuple[str, str, str]]:
    """Name, value, what it means; only what was measured.

    `piece` is what multiply-adds are counted for, `unit` that of the speed and `speed` what it says.
    """
    where = "" if cost.device is None else f" on {cost.device}"
    size = ("Tree nodes", cost.nodes, "Questions and answers") if cost.nodes else ("Parameters", cost.parameters, "Numbers")
    rows = [(size[0], _scaled(size[1]), f"{size[2]} the model has learned; they set the size of its file.")]
    if cost.macs is not None:
        less = "" if cost.dense_macs is None else f" on average; {cost.dense_macs / 1e9:.3g} GMACs without token reduction"
        told = f"For {piece}{less}. A multiplication and its addition count as one; where papers count two, halve theirs."
        rows.append(("Multiply-adds", f"{cost.macs / 1e9:.3g} GMACs", told))
    if cost.images_per_s is not None:
        rows.append(("Speed", f"{cost.images_per_s:.3g} {unit}", f"{speed}{where}."))
    if cost.training_minutes is not None:
        each = "" if trainings == 1 else f", each of {trainings} seeds"
        rows.append(("Training", duration(cost.training_minutes), f"Wall-clock time, validation included{each}."))
    if cost.peak_memory_bytes is not None:
        rows.append(
            ("Peak memory", f"{cost.peak_memory_bytes / 2**30:.2f} GiB", f"The most held at once while predicting{where}.")
        )
    return rows


def devices_sentence(costs: Sequence[Cost]) -> str:
    """Where the speeds that stand beside each other were measured."""
    devices = {cost.device for cost in costs if cost.device is not None}
    if not devices:
        return ""
    told = " and ".join(sorted(devices))
    if len(devices) > 1:
        return f"Speeds were measured on different devices ({told}) and cannot be compared."
    return f"Speeds were measured on {told}, each run at its own time: differences of some percent mean nothing."

"""When a scene was acquired, as far as its file says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

TIME = re.compile(
    r"(\d{4})[:-](\d\d)[:-](\d\d)(?:[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6})\d*)?\s*(?:Z|UTC|([+-])(\d\d):?(\d\d))?)?$"
)
# Of GDAL's metadata, the surest first: domain, and the end of the key in small letters.
KEYS = (
    ("IMAGERY", "acquisitiondatetime"),
    ("IMD", "firstlinetime"),
    ("IMD", "earliestacqtime"),
    (None, "datatake_1_datatake_sensing_start"),
    (None, "product_start_time"),
    ("ENVI", "acquisition_time"),
    (None, "exif_datetimeoriginal"),
    (None, "tifftag_datetime"),
)
NOTHING = "nothing: the scene does not say, it may be any time"


@dataclass(frozen=True, kw_only=True, slots=True)
class Acquired:
    """A moment, or the first and the last one it may be; in UTC as RFC 3339 writes it."""

    moment: str | None = None
    start: str = "0001-01-01T00:00:00Z"
    end: str = "9999-12-31T23:59:59Z"
    told_by: str = NOTHING

    def properties(self) -> dict[str, str | None]:
        """As STAC says it."""
        if self.moment is not None:
            return {"datetime": self.moment}
        return {"datetime": None, "start_datetime": self.start, "end_datetime": self.end}


def acquired(dataset: Any) -> Acquired:
    """What an open rasterio dataset says. Times without a zone are taken for UTC; a mere date is that day."""
    for told_by, text in _said(dataset):
        if (found := _read(text)) is not None:
            moment, whole_day = found
            if not whole_day:
                return Acquired(moment=written(moment), told_by=told_by)
            last = moment + timedelta(days=1, seconds=-1)
            return Acquired(start=written(moment), end=written(last), told_by=told_by)
    return Acquired()


def written(moment: datetime) -> str:
    """In UTC as RFC 3339 writes it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _said(dataset: Any) -> Iterator[tuple[str, str]]:
    """What may be the time, and where it stands."""
    for domain, ending in KEYS:
        for key, text in dataset.tags(ns=domain).items() if domain else dataset.tags().items():
            if key.casefold().endswith(ending):
                yield f"{domain} {key}" if domain else key, text


def _read(text: str) -> tuple[datetime, bool] | None:
    """A time, and whether it is only a date; None where it is none."""
    found = TIME.match(text.strip("\"'; "))
    if found is None:
        return None
    year, month, day, hour, minute, second, part, sign, ahead, minutes = found.groups()
    shift = timedelta(hours=int(ahead or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    try:
        moment = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC)
    except ValueError:  # a camera whose clock was never set writes zeros
        return None
    moment = moment.replace(microsecond=int((part or "0").ljust(6, "0"))) - shift
    return (moment, hour is None) if moment.timestamp() else None  # 1970 is what GDAL makes of a time that it cannot read

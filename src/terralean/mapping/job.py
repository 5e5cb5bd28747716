"""The folder of a map that is being made. What is finished is on disk, so that a killed run goes on from there.

It is called as the map will be, with `.part` behind it, and holds
- `job.json`, what the map is made of and how: a run goes on only where all of it is the same,
- a file of plain rows for each thing that is told of a pixel: `classes`, `confidence`, ... (see `RowFile`),
- `journal.jsonl`, a line for each piece of finished rows, with their checksums, written once the rows are on the disk, and
  later one for each file that was made of them,
- `whole/`, where these files wait for their names, which they get together when all of them are there.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terralean.errors import JobError, OutputFailed, UnreadableScene
from terralean.mapping.journal import Journal
from terralean.mapping.lock import NAME as LOCK
from terralean.mapping.lock import Lock
from terralean.mapping.work import Finished
from terralean.raster.cog import NOTHING_LEFT, Content, failed, name_files, remove_empty, sync
from terralean.raster.source import GDAL_ERRORS

log = logging.getLogger(__name__)

CARD, JOURNAL, WHOLE = "job.json", "journal.jsonl", "whole"
REPLACED = " if the scene can be read as it is; where its file is replaced, say --overwrite"
UNWRITTEN = ("-wal", "-shm", "-journal")  # endings of files that SQLite keeps beside its own
SHOWN, FILES_SHOWN = 6, 2  # differences between two jobs, and files in one of them
FINGERPRINT, SHORT = 64, 12  # digits of a fingerprint, and those that are told


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a map is made of."""

    facts: Mapping[str, Any]  # all that its bytes depend on, as JSON holds it
    contents: Mapping[str, Content]  # of its files of rows
    width: int
    heights: Sequence[int]  # rows of the pieces that it is made in


class Job:
    """Rows and files of a map so far. Made by `open_job`."""

    def __init__(self, folder: Path, order: Order) -> None:
        self.folder, self.contents, self._order = folder, order.contents, order
        self._journal = Journal(folder / JOURNAL)
        self.rows = {name: content.rows(folder / name, width=order.width) for name, content in order.contents.items()}
        self._check()
        self.resumed_rows = self.rows_done

    @property
    def done(self) -> int:
        """Pieces that are finished."""
        return min(len(self._journal.entries), len(self._order.heights))

    @property
    def height(self) -> int:
        """Rows of the map."""
        return sum(self._order.heights)

    @property
    def rows_done(self) -> int:
        """Rows in these."""
        return sum(self._order.heights[: self.done])

    @property
    def complete(self) -> bool:
        """Whether all rows are there."""
        return self.done == len(self._order.heights)

    @property
    def named(self) -> bool:
        """Whether the files have begun to get their names."""
        return any("named" in entry for entry in self._journal.entries)

    @property
    def windows(self) -> int:
        """Windows that were predicted for the rows."""
        return sum(entry["windows"] for entry in self._journal.entries[: self.done])

    @property
    def kept_sum(self) -> float:
        """Over these windows, the share of tokens kept."""
        return sum(entry["kept_sum"] for entry in self._journal.entries[: self.done])

    def bytes_on_disk(self) -> int:
        """What its folder takes."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def keep(self, piece: Finished) -> None:
        """Put the next rows on the disk."""
        sums = {name: self.rows[name].append(values) for name, values in piece.rows.items()}
        for rows in self.rows.values():
            rows.sync()
        self._journal.append(
            {"rows": self._order.heights[self.done], "sums": sums, "windows": piece.windows, "kept_sum": piece.kept_sum}
        )

    @contextmanager
    def making(self, name: str) -> Iterator[Path | None]:
        """Where to make a file, with what belongs beside it; None where it is made already."""
        made = {file for entry in self._journal.entries for file in entry.get("made", ())}
        if name in made:
            yield None
            return
        folder = self.folder / WHOLE
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():  # what a kill left half made
            if file.name not in made:
                _remove(file)
        yield folder / name
        new = sorted(file.name for file in folder.iterdir() if file.name not in made)
        for made_now in new:
            sync(folder / made_now)
        self._journal.append({"made": new})

    def name_files(self, *, last: str) -> None:
        """Give all files their names; then forget the job. Where the file called `last` is there, all are."""
        folder = self.folder / WHOLE
        if not self.named:
            self._journal.append({"named": sorted(file.name for file in folder.iterdir())})
        files = sorted(folder.iterdir(), key=lambda file: (file.name == last, file.name))
        targets = [self.folder.parent / file.name for file in files]
        for target in targets:
            _remove_unwritten(target)
        name_files(list(zip(files, targets, strict=True)))
        self.forget()

    def forget(self) -> None:
        """Remove all of it."""
        _forget(self.folder)

    def close(self) -> None:
        """Let go of all files."""
        self._journal.close()
        for rows in self.rows.values():
            rows.close()

    def _check(self) -> None:
        """Keep the pieces that are on the disk as the journal says, and what was made if all are."""
        entries, row, good = self._journal.entries, 0, 0
        for entry, height in zip(entries, self._order.heights, strict=False):
            sums = {name: rows.checksum(row, height) for name, rows in self.rows.items()}
            if entry.get("rows") != height or entry.get("sums") != sums:
                break
            row, good = row + height, good + 1
        lost = min(len(entries), len(self._order.heights)) - good
        if lost or self._journal.damaged:
            log.warning("%s: the last %d of its pieces are damaged or half written; they are made again", self.folder, lost)
        if good < len(self._order.heights):
            self._journal.cut(good)
        for rows in self.rows.values():
            rows.cut(row)


@contextmanager
def open_job(folder: Path, order: Order, *, overwrite: bool, target: Path) -> Iterator[Job]:
    """The job in a folder, begun or gone on with. What the block leaves unfinished is kept, unless no row is.

    Raises JobError where another process is at it, or where it is another job and `overwrite` does not say to begin again;
    OutputFailed, about `target`, for what the disk says.
    """
    missing = [parent for parent in folder.absolute().parents if not parent.exists()]  # ours to remove
    lock, job = None, None
    try:
        lock = Lock(folder)
        _prepare(folder, order, overwrite=overwrite)
        job = Job(folder, order)
        yield job
    except (OSError, *GDAL_ERRORS) as error:
        raise failed(target, error, left=_left(job)) from error
    except OutputFailed as error:  # of a file that was being made of the rows
        where, what = (str(folder / WHOLE), str(target.parent)), (NOTHING_LEFT, _left(job))
        raise OutputFailed(str(error).replace(*where).replace(*what)) from error
    except BaseException as error:
        if job is not None and job.done and folder.exists():
            log.warning("%s%s", _left(job), REPLACED if isinstance(error, UnreadableScene) else "")
        raise
    finally:
        _let_go(folder, lock, job)
        if not folder.exists():
            remove_empty(missing)


def _let_go(folder: Path, lock: Lock | None, job: Job | None) -> None:
    """Close what is open, and leave no folder that nothing can go on from."""
    if job is not None:
        job.close()
    if lock is not None:
        if not (folder / CARD).exists() or (job is not None and not job.done):
            _forget(folder)
        lock.release()


def _left(job: Job | None) -> str:
    """What is left of a job that stopped, in words."""
    if job is None or not job.done:
        return NOTHING_LEFT
    return f"{job.rows_done} of {job.height} rows are kept in {job.folder}, and the same command goes on from there"


def _prepare(folder: Path, order: Order, *, overwrite: bool) -> None:
    """Raise JobError unless the folder holds this job or none; then it holds this one."""
    card = folder / CARD
    if card.is_file():
        another = _another(card, json.loads(json.dumps(order.facts)))
        if not another:
            return
        if not overwrite:
            raise JobError(f"{folder} holds a map that {another}, or say --overwrite to begin again")
        log.info("%s: begun again, since --overwrite says so", folder)
    card.unlink(missing_ok=True)
    for file in folder.iterdir():
        if file.name != LOCK:
            _remove(file)
    part = card.with_name(f"{CARD}.part")
    part.write_text(json.dumps(order.facts, indent=1) + "\n", encoding="utf-8")
    sync(part)
    part.replace(card)


def _another(card: Path, facts: Mapping[str, Any]) -> str:
    """In what a folder's job is another one, in words; nothing where it is this one."""
    try:
        before = json.loads(card.read_text(encoding="utf-8"))
    except ValueError:
        return f"cannot be gone on with, for its {card.name} is damaged; restore that file"
    differences = list(_differences(before, facts))
    more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
    fix = "give what it was begun with to go on, map to another folder"
    return f"was begun otherwise: {'; '.join(differences[:SHOWN])}{more}; {fix}" if differences else ""


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], *, prefix: str = "") -> Iterator[str]:
    """What two jobs differ in, in words."""
    for key in sorted(before.keys() | now.keys()):
        one, other = before.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, prefix=f"{prefix}{key}.")
        elif one != other:
            yield f"{prefix}{key} was {_words(one, other)}, is {_words(other, one)}"


def _words(fact: Any, other: Any) -> str:
    """A fact as people read it: files by their name, size and time, and of a fingerprint what is enough to tell two apart.

    Of many files those that are not in the other fact.
    """
    if isinstance(fact, list) and fact and all(isinstance(one, dict) for one in fact):
        only = [one for one in fact if one not in (other or [])]
        files = [", ".join(f"{key} {value}" for key, value in one.items() if value is not None) for one in only]
        more = f" and {len(files) - FILES_SHOWN} more" if len(files) > FILES_SHOWN else ""
        return " and ".join(files[:FILES_SHOWN]) + more or "without these"
    if isinstance(fact, str) and len(fact) == FINGERPRINT:
        return fact[:SHORT]
    return json.dumps(fact)


def _forget(folder: Path) -> None:
    """Remove a folder; without its first file it is no job any more."""
    (folder / CARD).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_unwritten(target: Path) -> None:
    """What a program that had an earlier GeoPackage open did not write into it: SQLite would write it into the new one."""
    if target.suffix == ".gpkg":
        for ending in UNWRITTEN:
            _remove(target.with_name(target.name + ending))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()

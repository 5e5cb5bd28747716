"""The folder of a run: whether it is this run's, what fixes it, and that one process at a time works in it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import unified_diff
from pathlib import Path
from typing import Any

import torch
import yaml

from terralean.errors import ConfigError, OutputFailed, RunError
from terralean.train.alike import continues, facts
from terralean.train.config import to_yaml
from terralean.train.experiments import AnyExperiment
from terralean.train.material import Material
from terralean.weights.card import NAME as CARD
from terralean.weights.card import seed_folders
from terralean.weights.lock import NAME as LOCK
from terralean.weights.lock import AtWork, Lock

RECIPE, SPLIT, DATA = "recipe.yaml", "split.json", "data.json"  # what fixes a run; the last says what its data hold
LAST, STATE = "last", "state.ckpt"  # folder and file that a killed run goes on from
PART, PROBE = ".part", ".terralean-"
MADE = (RECIPE, SPLIT, DATA, "metrics.csv")  # files that are there before there is anything to go on from


def is_done(out: Path, experiment: AnyExperiment, *, data: Path | None) -> bool:
    """Whether the run is finished. RunError where the folder is not that of this run, OutputFailed where it cannot be one."""
    if data is not None:
        _check_root(out, data)
    check_folder(out, experiment)
    if (out / CARD).is_file():
        return True
    _check_writable(out)
    if (out / LAST / LOCK).is_file():
        _take(out).release()
    _check_state(out / LAST / STATE)
    return False


def check_folder(out: Path, experiment: AnyExperiment) -> None:
    """Raise unless the folder is new, empty, or of this very recipe, perhaps as a version with fewer settings wrote it."""
    if not out.exists() or (out.is_dir() and _holds_nothing(out)):
        return
    before = out / RECIPE
    if seeds := seed_folders(out):
        raise RunError(
            f"{out} holds a run for each of the seeds {', '.join(map(str, seeds))}; go on with --seeds, or give a new --out"
        )
    if not before.is_file():
        raise RunError(f"{out} is no run of terralean but exists; choose a new folder for --out")
    old, recipe = before.read_text(errors="replace"), to_yaml(experiment)
    if old != recipe and not continues(_parsed(old, path=before), experiment):
        lines = unified_diff(old.splitlines(), recipe.splitlines(), "in the run", "asked for", lineterm="", n=0)
        difference = "\n".join(line for line in lines if not line.startswith("@@"))
        raise RunError(f"{out} was begun with another recipe:\n{difference}\ngive the same recipe to go on, or a new --out")


@contextmanager
def working(out: Path, experiment: AnyExperiment, material: Material) -> Iterator[None]:
    """Hold the folder for this process, and write what fixes the run or make sure that it is still so.

    Raises RunError where another process holds the folder, or where the data are not those of the run. A run that is refused
    for its settings before it has come anywhere leaves nothing behind.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    new = not (out / RECIPE).exists()
    lock = _take(out)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lock.release)  # readers that outlive a killed run for a moment must not hold it
    try:
        _begin(out, experiment, material)
        yield
    except ConfigError:
        if new and not (out / LAST / STATE).is_file():
            _forget(out, made)
        raise
    finally:
        lock.release()
        if (out / CARD).is_file():
            _clear(out)


def check_same_data(out: Path, material: Material) -> None:
    """Raise RunError where the data hold or are split otherwise than the run's. What it never noted is not compared."""
    path = out / SPLIT
    if material.save_split is not None and path.is_file():
        now = out / f"{SPLIT}.now"
        material.save_split(now)
        same = now.read_bytes() == path.read_bytes()
        now.unlink()
        if not same:
            raise RunError(
                f"the data are not those that {out} was begun with: {path} differs; restore them, or give a new --out"
            )
    before, now_found = _read_json(out / DATA) if (out / DATA).is_file() else {}, _told(material)
    lines = [
        f"{name}: {before[name]} then, {value} now" for name, value in now_found.items() if before.get(name, value) != value
    ]
    if lines:
        told = "\n  ".join(["", *lines])
        raise RunError(f"the data are not those that {out} was begun with:{told}\nrestore them, or give a new --out")


def data_changed(out: Path, data: Path) -> bool:
    """Whether a file of the data was written or put there since the run began; then it is worth reading them all again."""
    if not (out / DATA).is_file():
        return False
    since = (out / DATA).stat().st_mtime
    files = data.parent.iterdir() if data.is_file() else data.rglob("*")
    return any(_changed(file) > since for file in files if not file.is_relative_to(out))


def _changed(file: Path) -> float:
    try:
        found = file.stat()
    except OSError:  # a link to nowhere, or gone meanwhile
        return 0.0
    return max(found.st_mtime, found.st_ctime)


def _begin(out: Path, experiment: AnyExperiment, material: Material) -> None:
    """Only the recipe makes the folder a run: until it is there, the same command begins anew."""
    check_folder(out, experiment)  # another process may have come first
    if (out / CARD).is_file():
        raise RunError(f"{out} was finished by another process meanwhile; the same command again says how it ended")
    check_same_data(out, material)
    _write(out / RECIPE, to_yaml(experiment))
    if material.save_split is not None:
        part = out / f"{SPLIT}{PART}"
        material.save_split(part)
        part.replace(out / SPLIT)
    _write(out / DATA, json.dumps(_told(material), indent=1) + "\n")


def _told(material: Material) -> dict[str, str]:
    return {name: str(value) for name, value in facts(material).items()}


def _take(out: Path) -> Lock:
    try:
        return Lock(out / LAST)
    except AtWork as error:
        raise RunError(
            f"{out} is being trained by another process{f', {error}' if str(error) else ''}; wait until it is done, stop it, "
            "or give another --out"
        ) from error
    except OSError as error:
        raise _failed(out, error) from error


def _check_writable(out: Path) -> None:
    """Raise OutputFailed where nothing can be written there; nothing stays."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    try:
        os.rmdir(tempfile.mkdtemp(dir=there, prefix=PROBE))
    except OSError as error:
        raise _failed(out, error) from error


def _failed(out: Path, error: OSError) -> OutputFailed:
    return OutputFailed(f"{out} cannot be written: {error.strerror or error}; choose another --out")


def _check_state(path: Path) -> None:
    """Raise RunError where what a run goes on from is not whole."""
    if not path.is_file():
        return
    try:
        torch.load(path, map_location="cpu", mmap=True, weights_only=False)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise RunError(
            f"{path}, from which the run would go on, is damaged ({str(error).splitlines()[0]}); restore it from a copy, or "
            "delete it to train again from the first step"
        ) from error


def _check_root(out: Path, data: Path) -> None:
    """Raise where a finished run learned from another folder; what an unfinished one learns from is compared in full."""
    if not ((out / CARD).is_file() and (out / SPLIT).is_file()):
        return
    before = _read_json(out / SPLIT).get("root", "")
    if Path(before).resolve() != data.resolve():
        raise RunError(f"{out} is finished and was trained on {before}, not on {data}; give a new --out to train on other data")


def _holds_nothing(out: Path) -> bool:
    """Whether there is no more than a run leaves that was killed before it had written its recipe."""
    left = [path for path in out.iterdir() if path.name != f"{RECIPE}{PART}" and not path.name.startswith(PROBE)]
    return not left or ([path.name for path in left] == [LAST] and {file.name for file in left[0].iterdir()} <= {LOCK})


def _parsed(text: str, *, path: Path) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise RunError(f"{path} is not YAML ({told}); restore it from a copy, or give a new --out") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(errors="replace"))
    except json.JSONDecodeError as error:
        raise RunError(f"{path} is not JSON ({error}); restore it from a copy, or give a new --out") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} holds no values by name; restore it from a copy, or give a new --out")
    return found


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + PART)
    part.write_text(text)
    part.replace(path)


def _clear(out: Path) -> None:
    (out / LAST / LOCK).unlink(missing_ok=True)
    with suppress(OSError):
        (out / LAST).rmdir()


def _forget(out: Path, made: list[Path]) -> None:
    """Take away what this process has written, and the folders that it made for it."""
    for name in MADE:
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "tensorboard", ignore_errors=True)
    _clear(out)
    with suppress(OSError):
        for folder in made:
            folder.rmdir()

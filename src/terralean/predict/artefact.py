"""A folder that `terralean export` wrote: graphs for a runtime, the card of their run, and `export.json`, read here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError

from terralean.boxes.two_looks import Suppression
from terralean.errors import RunError
from terralean.weights.card import Card, read_card

FORMAT = 1
NAME = "export.json"
RuntimeName = Literal["onnxruntime", "openvino", "torch"]
GraphPrecision = Literal["fp32", "bf16", "fp16", "int8"]
Axis = Literal["batch", "height", "width"]
SUFFIXES: dict[RuntimeName, tuple[str, ...]] = {  # files of a graph, the one that is opened first
    "onnxruntime": (".onnx",),
    "openvino": (".xml", ".bin"),
    "torch": (".pt2",),
}
# Of a card, what the graph has built in.
CONTRACT = ("task", "model", "sizes", "reduce", "shrink", "seen_px", "bands", "normalisation", "classes", "temperature")


class Part(NamedTuple):
    """A graph of a model, with what goes in and comes out by name. The first axis of all that comes out is the batch."""

    name: str  # of its files
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


WHOLE = Part("model", ("image", "valid"), ("probabilities",))
MAPS = ("map_4", "map_8", "map_16", "map_32")  # by how many px of the image a place of them is
# A detector looks twice, and what is suppressed in between and behind is no part of a graph; see boxes.two_looks.
PROPOSE = Part("propose", ("image", "valid"), ("candidates", "logits", "level", *MAPS))
JUDGE = Part("judge", ("proposals", *MAPS), ("probabilities", "boxes"))  # of one image


def parts_of(task: str) -> tuple[Part, ...]:
    """The graphs of a model of a task."""
    return (PROPOSE, JUDGE) if task == "detection" else (WHOLE,)


def files_of(task: str, runtime: RuntimeName) -> tuple[str, ...]:
    """The files of these graphs."""
    return tuple(f"{part.name}{suffix}" for part in parts_of(task) for suffix in SUFFIXES[runtime])


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near a graph comes to the network that it was made of, on the same tiles."""

    tiles: int
    source: str  # of the tiles, in words
    difference: float  # largest, of a probability of a valid pixel, or of an object that both find
    mean_difference: float
    same_class: float  # share of valid pixels, of images, or of the objects that either finds, which both find
    overlap: float | None = None  # mean IoU of the boxes of an object that both find; None: there are no boxes
    objects: int | None = None  # that the network is sure of

    def words(self) -> str:
        """What both say alike."""
        if self.objects is None:
            return f"{self.same_class:.2%} with the same class"
        return f"{self.same_class:.2%} of {self.objects} objects found by both, boxes overlap by {self.overlap:.2%} on average"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `export.json` says."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    format: int = FORMAT
    target: str  # what it was exported for
    runtime: RuntimeName
    precision: GraphPrecision
    tile_px: int  # that it was checked at
    fixed: dict[Axis, int] = field(default_factory=dict)  # axes that must have this size; the others are free
    step_px: int = 1  # height and width are multiples of it, where they are free
    least_px: int = 1  # and no less than this
    opset: int | None = None  # of ONNX
    files: dict[str, str]  # SHA-256 of each file of the graphs
    contract: str  # SHA-256 of what card and graph share
    suppression: Suppression | None = None  # of a detector, between its graphs and behind them
    agreement: Agreement | None = None  # None: not compared yet; such a manifest is never written
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """An exported model on disk, checked."""

    folder: Path
    card: Card
    manifest: Manifest

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its graphs."""
        return parts_of(self.card.task)

    def graph(self, part: Part) -> Path:
        """The file that a runtime opens."""
        return self.folder / f"{part.name}{SUFFIXES[self.manifest.runtime][0]}"


def is_artefact(folder: Path) -> bool:
    """Whether a folder holds an exported model rather than a run."""
    return (folder / NAME).is_file()


def read_artefact(folder: Path) -> Artefact:
    """What was exported into a folder. RunError where files are missing, damaged, or do not belong together."""
    manifest, card = read_manifest(folder), read_card(folder)
    if contract(card) != manifest.contract:
        raise RunError(
            f"{folder}: card.json is not the one that the graph was exported with: bands, normalisation, classes or model "
            "differ; export the run again, and change neither file"
        )
    for name in files_of(card.task, manifest.runtime):
        _check_file(folder / name, expected=manifest.files.get(name))
    if card.task == "detection" and manifest.suppression is None:
        raise RunError(f"{folder / NAME} has no suppression, without which a detector finds no objects; export the run again")
    return Artefact(folder=folder, card=card, manifest=manifest)


def read_manifest(folder: Path) -> Manifest:
    """`export.json` of a folder."""
    path = folder / NAME
    try:
        values = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is not JSON ({error}); export the run again") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise RunError(f"{path} has format {found}, this version of terralean reads format {FORMAT}; export the run again")
    try:
        return TypeAdapter(Manifest).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{path}: {where}: {first['msg']}; export the run again") from error


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `export.json`: a folder with it is complete."""
    part = folder / f"{NAME}.part"
    part.write_text(json.dumps(asdict(manifest), indent=1) + "\n")
    part.replace(folder / NAME)


def contract(card: Card) -> str:
    """64 hexadecimal digits of all of a card that a graph has built in."""
    told = asdict(card)
    return hashlib.sha256(json.dumps({name: told[name] for name in CONTRACT}, sort_keys=True).encode()).hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_file(path: Path, *, expected: str | None) -> None:
    if not path.is_file():
        raise RunError(f"{path} is missing beside {NAME}; copy the whole folder, or export the run again")
    if digest(path) != expected:
        raise RunError(
            f"{path} is not the file that was exported: its content has changed; copy the folder again, or export again"
        )

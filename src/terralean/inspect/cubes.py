"""What cubes with labels are: bands, classes, how pixels are dealt; and everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from terralean.data.spectral.config import SpectralDataConfig
from terralean.data.spectral.leakage import check_leakage
from terralean.data.spectral.parts import NAMES
from terralean.data.spectral.patches import open_cubes, with_data
from terralean.data.spectral.pixels import Pixels
from terralean.data.spectral.scenes import SpectralDataset, find_cubes
from terralean.data.spectral.split import deal_pixels, known_pixels
from terralean.data.words import counted, listed
from terralean.errors import TerraleanError
from terralean.inspect.dataset import ClassShare
from terralean.inspect.finding import Finding, worst_first
from terralean.inspect.quiet import quiet
from terralean.inspect.scene import SceneReport, describe_scene
from terralean.raster.cube_source import CubeSource, is_cube

FEW = 20  # labelled pixels of a class below which it is hard to learn and to score


@dataclass(frozen=True, kw_only=True, slots=True)
class CubeAndLabels:
    """Which files belong together."""

    image: str
    labels: str | None
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class CubesReport:
    """What is known of cubes after reading their labels, and which pixels hold data."""

    root: str
    layout: str
    cubes: tuple[CubeAndLabels, ...] = ()
    scenes: tuple[SceneReport, ...] = ()  # of each cube, without findings: these are among those of the report
    classes: tuple[ClassShare, ...] = ()
    unlabelled_share: float | None = None  # of all pixels
    splits: dict[str, int] = field(default_factory=dict)  # pixels
    rule: str | None = None
    leakage: str | None = None
    findings: tuple[Finding, ...] = ()
    kind: Literal["labelled cubes"] = "labelled cubes"


def describe_cubes(path: Path, config: SpectralDataConfig, *, seed: int = 0) -> CubesReport:
    """Read every label and a view of every cube. What is wrong is a finding; nothing raises but a path that is not there."""
    with quiet():
        try:
            dataset = find_cubes(path, config)
        except TerraleanError as error:
            if not path.exists():
                raise
            return CubesReport(root=str(path), layout="cubes, labels not understood", findings=(_error(error),))
        scenes = [describe_scene(scene.image, bands=config.bands) for scene in dataset.scenes]
        findings = [*_of_scenes(scenes), *_of_labels(dataset)]
        report = _report(dataset, scenes)
        try:
            known = known_pixels(dataset, config)
        except TerraleanError as error:
            return replace(report, findings=worst_first([*findings, _error(error)]))
        report, more = _with_split(_counted(report, dataset, known), dataset, config, known, seed=seed)
    return replace(report, findings=worst_first([*findings, *_few(report.classes), *more]))


def _error(error: TerraleanError) -> Finding:
    return Finding(severity="error", message=str(error))


def _report(dataset: SpectralDataset, scenes: Sequence[SceneReport]) -> CubesReport:
    return CubesReport(
        root=dataset.root,
        layout=f"{counted(len(scenes), 'cube')} with labels",
        cubes=tuple(
            CubeAndLabels(
                image=Path(scene.image).name,
                labels=None if scene.labels is None else Path(scene.labels).name,
                width=scene.grid.width,
                height=scene.grid.height,
            )
            for scene in dataset.scenes
        ),
        scenes=tuple(replace(scene, findings=()) for scene in scenes),
    )


def _counted(report: CubesReport, dataset: SpectralDataset, known: Pixels) -> CubesReport:
    counts = known.counts(len(dataset.classes)).tolist()
    names, area = dataset.classes.names, sum(scene.grid.window.pixels for scene in dataset.scenes)
    shares = (
        ClassShare(name=name, pixels=count, share=count / max(len(known), 1)) for name, count in zip(names, counts, strict=True)
    )
    return replace(report, classes=tuple(shares), unlabelled_share=1 - len(known) / area)


def _with_split(
    report: CubesReport, dataset: SpectralDataset, config: SpectralDataConfig, known: Pixels, *, seed: int
) -> tuple[CubesReport, list[Finding]]:
    """The pixels dealt as training would deal them."""
    findings = []
    try:
        there = with_data(known, open_cubes([scene.image for scene in dataset.scenes], bands=config.bands))
        if lost := len(known) - len(there):
            message = f"{lost} of {len(known)} labelled pixels hold no data in the cube; they are left out"
            findings.append(Finding(severity="warning", message=message))
        split = deal_pixels(dataset, config, there, seed=seed)
    except TerraleanError as error:
        return report, [*findings, _error(error)]
    leakage = check_leakage(split, classes=len(dataset.classes))
    findings += [Finding(severity="warning", message=note) for note in split.notes]
    if leakage.leaks:
        fix = "use data.split.method=block; a score on this split says little about other pixels"
        findings.append(Finding(severity="warning", message=leakage.verdict, fix=fix))
    counts = {name: len(split.of(name)) for name in NAMES}
    return replace(report, splits=counts, rule=split.rule, leakage=leakage.verdict), findings


# What is wrong.


def _of_scenes(scenes: Sequence[SceneReport]) -> Iterable[Finding]:
    """What is wrong with each cube, named where there are several."""
    for scene in scenes:
        start = f"{Path(scene.path).name}: " if len(scenes) > 1 else ""
        yield from (replace(finding, message=f"{start}{finding.message}") for finding in scene.findings)


def _of_labels(dataset: SpectralDataset) -> Iterable[Finding]:
    """What was assumed of the files, and what label maps that are cubes themselves lack."""
    yield from (Finding(severity="note", message=note) for note in dataset.notes)
    for scene in dataset.scenes:
        if scene.labels is None or scene.labels == scene.image or not is_cube(scene.labels):
            continue
        for text in CubeSource(scene.labels, labels=True).cube.warnings:
            yield Finding(severity="warning", message=f"{Path(scene.labels).name}: {text}")


def _few(classes: Sequence[ClassShare]) -> Iterable[Finding]:
    if missing := [share.name for share in classes if not share.pixels]:
        message = f"no pixel is labelled {listed(missing)}"
        yield Finding(severity="warning", message=message, fix="a model never learns it: label some, or leave the class out")
    if few := [f"{share.name} ({share.pixels} px)" for share in classes if 0 < share.pixels < FEW]:
        message = f"fewer than {FEW} labelled pixels of {listed(few)}"
        yield Finding(severity="note", message=message, fix="label more, or expect a score with wide intervals")

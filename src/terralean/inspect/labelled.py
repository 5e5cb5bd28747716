"""What a folder of images that each have a class is: layout, classes, sizes, split and leaks; and all that is wrong with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from terralean.data.config import SplitName
from terralean.data.deal import NAMES
from terralean.data.index import RASTERS, VECTORS, is_dataset
from terralean.data.scene_check import Look, Seen, look_at_all, one_kind
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_index import LABEL_COLUMNS, SceneDataset, SceneImage, find_scenes, is_scene_dataset
from terralean.data.scene_leakage import scene_leakage
from terralean.data.scene_reading import SceneFiles
from terralean.data.scene_split import SceneSplit, deal_scenes
from terralean.data.scene_statistics import measure_scenes
from terralean.data.table import columns_of, read_table
from terralean.data.words import counted, listed
from terralean.errors import BandMismatch, TerraleanError
from terralean.inspect.finding import Finding, worst_first
from terralean.spec import Bands

SHOWN = 20  # files that are told one by one
FEW = 10  # images of a class below which it is hard to learn and to score
UNEVEN = 10  # times as many images of one class as of another from which it is worth a word
HIDDEN = 0.5  # of an image's area; where its centre shows less, that is


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassImages:
    """How many images a class has."""

    name: str
    images: int
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class BandSpread:
    """Of the valid training pixels."""

    name: str
    mean: float
    std: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitImages:
    """What a split has."""

    images: int
    class_images: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LabelledReport:
    """What is known of labelled images after decoding every one."""

    root: str
    layout: str
    images: int = 0  # that can be read
    smallest_px: tuple[int, int] | None = None  # height and width
    median_px: tuple[int, int] | None = None  # of the image in the middle by area
    largest_px: tuple[int, int] | None = None
    bands: Bands | None = None
    values: tuple[BandSpread, ...] = ()
    classes: tuple[ClassImages, ...] = ()
    unreadable: tuple[str, ...] = ()  # one sentence each
    duplicates: tuple[tuple[str, ...], ...] = ()  # of the very same pixels
    splits: dict[SplitName, SplitImages] = field(default_factory=dict)
    rule: str | None = None
    leakage: str | None = None
    findings: tuple[Finding, ...] = ()
    kind: Literal["labelled images"] = "labelled images"


def holds_labelled_images(path: str | Path) -> bool:
    """Whether a folder is laid out as images with a class each, and not as images with a class for each pixel.

    An index.csv says it by its labels, which are files where pixels have classes. Folders named as those of images and masks
    are, go before a folder per class. No image is opened.
    """
    root = Path(path)
    if (root / "index.csv").is_file():
        return _names_classes(root / "index.csv")
    return is_scene_dataset(root) and not is_dataset(root)


def describe_labelled(path: Path, config: SceneDataConfig, *, seed: int = 0) -> LabelledReport:
    """Decode every image. What is wrong is a finding; nothing raises but a path that is not there."""
    try:
        dataset = find_scenes(path, config)
    except TerraleanError as error:
        if not path.is_dir():
            raise
        finding = Finding(severity="error", message=str(error))
        return LabelledReport(root=str(path), layout="not understood", findings=(finding,))
    looks = list(look_at_all(dataset.images, config))
    seen = {look.image.path: look.seen for look in looks if look.seen is not None}
    report = _report(dataset, looks, seen)
    blocking = [*_faults(report, config), *_kinds(dataset, looks)]
    findings = [*blocking, *_copies(report, dataset), *_balance(report), *_hidden(report, seen, config)]
    if seen and not any(finding.severity == "error" for finding in blocking):
        usable = replace(dataset, images=tuple(image for image in dataset.images if image.path in seen))
        report, more = _with_split(report, usable, config, seen=seen, seed=seed)
        findings += more
    return replace(report, findings=worst_first(findings))


def _names_classes(index: Path) -> bool:
    column = next((name for name in LABEL_COLUMNS if name in columns_of(index)), None)
    labels = [] if column is None else [row[column] for row in read_table(index)[1]]
    files = any(Path(label).suffix.lower() in (*RASTERS, *VECTORS) for label in labels)
    return column is not None and not files


def _report(dataset: SceneDataset, looks: Sequence[Look], seen: dict[str, Seen]) -> LabelledReport:
    sizes = sorted(((one.height, one.width) for one in seen.values()), key=lambda size: (size[0] * size[1], size))
    counts = _counts((look.image for look in looks if look.fault is None), classes=len(dataset.classes))
    return LabelledReport(
        root=dataset.root,
        layout=dataset.layout,
        images=len(seen),
        smallest_px=sizes[0] if sizes else None,
        median_px=sizes[len(sizes) // 2] if sizes else None,
        largest_px=sizes[-1] if sizes else None,
        bands=dataset.bands,
        classes=tuple(
            ClassImages(name=name, images=count, share=count / max(len(seen), 1))
            for name, count in zip(dataset.classes.names, counts, strict=True)
        ),
        unreadable=tuple(str(look.fault) for look in looks if look.fault is not None),
        duplicates=_twins(seen),
    )


def _counts(images: Iterable[SceneImage], *, classes: int) -> tuple[int, ...]:
    return tuple(np.bincount([image.label for image in images], minlength=classes).tolist())


def _twins(seen: dict[str, Seen]) -> tuple[tuple[str, ...], ...]:
    """Paths of images with the very same pixels."""
    by_digest: dict[str, list[str]] = defaultdict(list)
    for path, one in seen.items():
        by_digest[one.digest].append(path)
    return tuple(tuple(paths) for paths in by_digest.values() if len(paths) > 1)


# What is wrong.


def _faults(report: LabelledReport, config: SceneDataConfig) -> Iterable[Finding]:
    """Files that cannot be used."""
    skip = config.unreadable == "skip"
    fix = None if skip else "mend or remove it, or train without such images: --set data.unreadable=skip"
    for sentence in report.unreadable[:SHOWN]:
        yield Finding(severity="warning" if skip else "error", message=sentence, fix=fix)
    if (more := len(report.unreadable) - SHOWN) > 0:
        yield Finding(severity="warning" if skip else "error", message=f"{more} more images cannot be used", fix=fix)


def _kinds(dataset: SceneDataset, looks: Sequence[Look]) -> Iterable[Finding]:
    """Images with other bands than the rest, and classes of which no image is left."""
    found = [(look.image.path, look.bands) for look in looks if look.bands is not None]
    if not found:
        return
    try:
        one_kind(dataset, found)
    except BandMismatch as error:
        yield Finding(severity="error", message=str(error))
    left = {look.image.label for look in looks if look.fault is None}
    lost = sorted({look.image.label for look in looks} - left)
    if lost:
        message = f"none of the images of {listed([dataset.classes.names[label] for label in lost])} can be used"
        yield Finding(severity="error", message=message, fix="mend some, or take the class out")


def _copies(report: LabelledReport, dataset: SceneDataset) -> Iterable[Finding]:
    """The very same pixels under two names, and under two classes."""
    if not report.duplicates:
        return
    label = {image.path: dataset.classes.names[image.label] for image in dataset.images}
    told = [" = ".join(_short(path, dataset) for path in twins) for twins in report.duplicates]
    message = f"{counted(len(told), 'image')} {'is' if len(told) == 1 else 'are'} there more than once: {listed(told)}"
    yield Finding(severity="warning", message=message, fix="keep one of each, or give copies one group in index.csv")
    odd = [twins for twins in report.duplicates if len({label[path] for path in twins}) > 1]
    if odd:
        pairs = [" = ".join(f"{_short(path, dataset)} ({label[path]})" for path in twins) for twins in odd]
        yield Finding(severity="warning", message=f"the same pixels have two classes: {listed(pairs)}", fix="correct the label")


def _short(path: str, dataset: SceneDataset) -> str:
    return str(Path(path).relative_to(dataset.root)) if Path(path).is_relative_to(dataset.root) else path


def _balance(report: LabelledReport) -> Iterable[Finding]:
    there = sorted((share for share in report.classes if share.images), key=lambda share: share.images)
    if not there:
        return
    few = [f"{share.name} ({share.images})" for share in there if share.images < FEW]
    if few:
        message = f"fewer than {FEW} images of {listed(few)}"
        yield Finding(severity="note", message=message, fix="give more, or expect a score with wide intervals")
    least, most = there[0], there[-1]
    if most.images >= UNEVEN * least.images:
        message = (
            f"classes are uneven: {most.images} images of {most.name}, {least.images} of {least.name}; a model that is right "
            "for most images may miss the rare ones, so look at the accuracy of each class"
        )
        yield Finding(severity="note", message=message)


def _hidden(report: LabelledReport, seen: dict[str, Seen], config: SceneDataConfig) -> Iterable[Finding]:
    if config.views != "centre":
        return
    shown = {path: (min(one.height, one.width) * config.size_px / config.resize_px) ** 2 for path, one in seen.items()}
    hidden = [path for path, area in shown.items() if area < HIDDEN * seen[path].height * seen[path].width]
    if hidden:
        one = seen[hidden[0]]
        message = (
            f"{len(hidden)} of {len(seen)} images are so long that their centre shows less than half of them "
            f"({Path(hidden[0]).name}, {one.width} x {one.height} px, for one)"
        )
        yield Finding(severity="note", message=message, fix="have all of an image judged: --set data.views=many")


# Split and leaks.


def _with_split(
    report: LabelledReport, dataset: SceneDataset, config: SceneDataConfig, *, seen: dict[str, Seen], seed: int
) -> tuple[LabelledReport, list[Finding]]:
    try:
        split = deal_scenes(dataset, config, seed=seed)
        train = SceneFiles(split.of("train"), bands=dataset.bands, classes=dataset.classes, config=config)
        normalisation, _ = measure_scenes(train, seed=seed)
    except TerraleanError as error:
        return report, [Finding(severity="error", message=str(error))]
    leakage = scene_leakage(split, seen=seen)
    spreads = zip(dataset.bands.names, normalisation.mean, normalisation.std, strict=True)
    values = tuple(BandSpread(name=name, mean=round(mean, 4), std=round(std, 4)) for name, mean, std in spreads)
    shares = {name: _share(split, name, classes=len(dataset.classes)) for name in NAMES}
    findings = [*_unjudged(shares, dataset), *_leaks(split, leakage)]
    return replace(report, splits=shares, rule=split.rule, leakage=leakage, values=values), findings


def _share(split: SceneSplit, name: SplitName, *, classes: int) -> SplitImages:
    images = split.of(name)
    return SplitImages(images=len(images), class_images=_counts(images, classes=classes))


def _leaks(split: SceneSplit, leakage: str) -> Iterable[Finding]:
    if leakage.startswith("LEAKS"):
        fix = {
            "given": "give copies, and images of one group, to one split; or set data.split.rule",
            "groups": "name what belongs together in index.csv (group) or with data.group",
            "random": "take copies out, or name what belongs together with data.group",
        }[split.method]
        yield Finding(severity="warning", message=leakage, fix=fix)


def _unjudged(shares: dict[SplitName, SplitImages], dataset: SceneDataset) -> Iterable[Finding]:
    """Classes that a split which judges lacks."""
    for name in ("validation", "test"):
        share = shares[name]
        lacking = [c for c, count in zip(dataset.classes.names, share.class_images, strict=True) if not count]
        if lacking and share.images:
            message = f"the {name} split has no image of {listed(lacking)}"
            yield Finding(severity="note", message=message, fix="another seed, a larger share (data.split), or more images")

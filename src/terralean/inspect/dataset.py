"""What a dataset is: its layout, classes, split and leaks; and everything that is wrong with it, not only the first thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from terralean.data.config import DataConfig, SplitName
from terralean.data.conventions import doubts
from terralean.data.deal import NAMES
from terralean.data.familiar import familiar_set, settings
from terralean.data.index import Dataset, Source, find
from terralean.data.leakage import check_leakage, duplicates
from terralean.data.reading import Reader
from terralean.data.split import Split, make_split
from terralean.data.statistics import numbers_alone
from terralean.data.words import listed
from terralean.errors import GridMismatch, LabelError, TerraleanError, UnreadableScene
from terralean.inspect.finding import Finding, worst_first
from terralean.inspect.scene import BandValues, band_values, percent, undeclared, view_px
from terralean.raster.grid import Window
from terralean.raster.scene import open_scene, read_preview
from terralean.spec import IGNORE, Bands

VOID = 0.2  # share of nodata from which crops are often empty
SCARCE = 1e-3  # share of the labelled pixels below which a class is hard to learn and to score


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassShare:
    """How much of the labels a class has."""

    name: str
    pixels: int
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitShare:
    """How much of the dataset a split has."""

    images: int
    regions: int
    pixels: int
    class_pixels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """What is known of a dataset after reading its labels."""

    root: str
    layout: str
    images: int = 0
    smallest_px: tuple[int, int] | None = None  # height and width
    largest_px: tuple[int, int] | None = None
    bands: Bands | None = None
    values: tuple[BandValues, ...] = ()
    crs: tuple[str | None, ...] = ()
    classes: tuple[ClassShare, ...] = ()
    ignored_share: float | None = None  # of all pixels, those without a label
    nodata_share: float | None = None
    misaligned: tuple[str, ...] = ()  # one sentence for each pair that does not lie on one grid
    faulty_labels: tuple[str, ...] = ()  # one for each label file with values that are no class
    unreadable: tuple[str, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()
    splits: dict[SplitName, SplitShare] = field(default_factory=dict)
    rule: str | None = None
    leakage: str | None = None
    leaked_share: float | None = None  # of the test pixels
    findings: tuple[Finding, ...] = ()
    kind: Literal["dataset"] = "dataset"


def describe_dataset(
    path: Path, config: DataConfig, *, seed: int = 0, read: Callable[[Path, DataConfig], Dataset] = find
) -> DatasetReport:
    """Read every label and a view of every image. What is wrong is a finding; nothing raises but a path that is not there.

    `read` finds the images and labels.
    """
    try:
        dataset = read(path, config)
    except TerraleanError as error:
        if not path.exists():
            raise
        finding = Finding(severity="error", message=str(error))
        return DatasetReport(root=str(path), layout="not understood", findings=(finding,))
    contents = _read_all(dataset, config)
    report = _report(dataset, contents)
    conventions = list(_conventions(dataset, config))
    explained = any(finding.severity == "error" for finding in conventions)
    blocking = [*_faults(report, explained=explained), *_one_class(report), *_looks(report)]
    findings = [*conventions, *blocking, *_balance(report, dataset), *_void(contents.void)]
    if contents.sound and not any(finding.severity == "error" for finding in blocking):
        report, more = _with_split(report, dataset, config, seed=seed)
        findings += more
    return replace(report, findings=worst_first(findings))


@dataclass(kw_only=True)
class _Contents:
    """What reading the files gathers."""

    counts: NDArray[np.int64]  # (K,) labelled pixels
    unlabelled: int = 0
    valid_shares: list[tuple[float, int]] = field(default_factory=list)  # of each image, and its pixels
    sizes: list[tuple[int, int]] = field(default_factory=list)
    crs: Counter[str | None] = field(default_factory=Counter)
    values: list[tuple[BandValues, ...]] = field(default_factory=list)
    misaligned: list[str] = field(default_factory=list)
    faulty: list[str] = field(default_factory=list)
    void: list[str] = field(default_factory=list)  # images with pixels that look like undeclared nodata
    unreadable: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether everything could be read."""
        return not (self.misaligned or self.faulty or self.unreadable)


def _read_all(dataset: Dataset, config: DataConfig) -> _Contents:
    reader = Reader(classes=dataset.classes, coding=dataset.coding, config=config)
    contents = _Contents(counts=np.zeros(len(dataset.classes), dtype=np.int64))
    for source in dataset.sources:
        _view(source, config, dataset.bands, contents)
        try:
            counts = label_counts(source.image, source.label, reader.grid(source.image).window, reader)
        except GridMismatch as error:
            contents.misaligned.append(str(error))
        except LabelError as error:
            contents.faulty.append(str(error))
        except UnreadableScene as error:
            contents.unreadable.append(str(error))
        else:
            contents.counts += counts[:-1]
            contents.unlabelled += int(counts[-1])
    return contents


def label_counts(image: str, label: str, window: Window, reader: Reader) -> NDArray[np.int64]:
    """(K + 1,) pixels of each class in the window, and last those without one."""
    counts = np.zeros(IGNORE + 1, dtype=np.int64)
    for strip in reader.strips(image, window):
        counts += np.bincount(reader.labels(image, label, strip).ravel(), minlength=IGNORE + 1)
    return np.append(counts[: len(reader.classes)], counts[IGNORE])


def _view(source: Source, config: DataConfig, bands: Bands, contents: _Contents) -> None:
    with open_scene(source.image, bands=config.bands) as scene:
        contents.sizes.append((scene.grid.height, scene.grid.width))
        contents.crs[scene.grid.crs] += 1
        try:
            view, valid = read_preview(scene, view_px(scene))
        except UnreadableScene as error:
            contents.unreadable.append(str(error))
            return
    contents.valid_shares.append((float(valid.mean()), scene.grid.window.pixels))
    contents.values.append(band_values(view, valid, bands))
    contents.void += [
        f"{Path(source.image).name} ({percent(share)} {value})" for value, share in undeclared(view, valid, scene)
    ]


def _report(dataset: Dataset, contents: _Contents) -> DatasetReport:
    labelled = int(contents.counts.sum())
    known = labelled + contents.unlabelled
    area = sum(pixels for _, pixels in contents.valid_shares)
    return DatasetReport(
        root=dataset.root,
        layout=dataset.layout,
        images=len(dataset.sources),
        smallest_px=min(contents.sizes, key=lambda size: size[0] * size[1]),
        largest_px=max(contents.sizes, key=lambda size: size[0] * size[1]),
        bands=dataset.bands,
        values=_all_values(dataset.bands, contents.values),
        crs=tuple(crs for crs, _ in contents.crs.most_common()),
        classes=tuple(
            ClassShare(name=name, pixels=int(pixels), share=float(pixels / max(labelled, 1)))
            for name, pixels in zip(dataset.classes.names, contents.counts, strict=True)
        ),
        ignored_share=contents.unlabelled / known if known else None,
        nodata_share=1 - sum(share * pixels for share, pixels in contents.valid_shares) / area if area else None,
        misaligned=tuple(contents.misaligned),
        faulty_labels=tuple(contents.faulty),
        unreadable=tuple(contents.unreadable),
        duplicates=tuple(duplicates([source.image for source in dataset.sources])) if not contents.unreadable else (),
    )


def _all_values(bands: Bands, found: Sequence[tuple[BandValues, ...]]) -> tuple[BandValues, ...]:
    """Over all images: each counts alike in the mean."""
    seen = [values for values in found if values]
    return tuple(
        BandValues(
            name=name,
            minimum=min(values[i].minimum for values in seen),
            maximum=max(values[i].maximum for values in seen),
            mean=sum(values[i].mean for values in seen) / len(seen),
        )
        for i, name in enumerate(bands.names)
        if seen
    )


# What is wrong.


def _faults(report: DatasetReport, *, explained: bool) -> Iterable[Finding]:
    """Files that cannot be used; labels are not told one by one where one sentence about all of them explains it."""
    for sentences, fix in (
        (report.misaligned, "write each mask on the grid of its image; a shift of a pixel costs as much as a bad model"),
        (() if explained else report.faulty_labels, "correct the labels, or name all classes in classes.csv"),
        (report.unreadable, "copy or download the files again, or take them out"),
    ):
        for sentence in sentences:
            yield Finding(severity="error", message=sentence, fix=fix)
    if report.duplicates:
        pairs = [" = ".join(Path(path).name for path in twins) for twins in report.duplicates]
        message = f"{len(pairs)} images are there more than once: {listed(pairs)}"
        yield Finding(severity="warning", message=message, fix="keep one of each, or give copies one group in index.csv")


def _one_class(report: DatasetReport) -> Iterable[Finding]:
    labelled = [share for share in report.classes if share.pixels]
    if not labelled and not (report.misaligned or report.faulty_labels or report.unreadable):
        fix = "check that the label values are 0, 1, ... and that 255 is not a class"
        yield Finding(severity="error", message="no pixel has a label", fix=fix)
    if len(labelled) == 1:
        fix = "label a second class; where 255 was meant as one, write it as 1"
        yield Finding(severity="error", message=f"all labels are of one class, {labelled[0].name}", fix=fix)


def _balance(report: DatasetReport, dataset: Dataset) -> Iterable[Finding]:
    labelled = [share for share in report.classes if share.pixels]
    missing = [share.name for share in report.classes if not share.pixels]
    if missing and labelled:
        fix = "label some, or leave the class out with data.ignore; training refuses a class it never sees"
        if numbers := numbers_alone(dataset.classes, dataset.coding, [share.pixels for share in report.classes]):
            fix = f"if the classes are the numbers that there are: {settings({'label_values': numbers})}; else {fix}"
        yield Finding(severity="error", message=f"no pixel is labelled {', '.join(missing)}", fix=fix)
    scarce = [f"{share.name} ({share.pixels} px)" for share in labelled if share.share < SCARCE]
    if scarce:
        fix = "label more of it, or expect a score with wide intervals; data.rare_share shows it more often in training"
        yield Finding(severity="note", message=f"less than 0.1% of the labels: {', '.join(scarce)}", fix=fix)


def _looks(report: DatasetReport) -> Iterable[Finding]:
    still = [values.name for values in report.values if values.minimum == values.maximum]
    if still:
        fix = "leave such bands out with data.bands; they cannot be normalised"
        yield Finding(severity="error", message=f"constant in every image: {', '.join(still)}", fix=fix)
    if report.nodata_share is not None and report.nodata_share > VOID:
        message = f"{report.nodata_share:.0%} of the pixels are nodata"
        yield Finding(severity="note", message=f"{message}; they neither train nor judge")
    if None in report.crs:
        where = "no image has coordinates" if report.crs == (None,) else "some images have no coordinates"
        fix = "name what belongs together in index.csv (group) or with data.group"
        yield Finding(severity="note", message=f"{where}: neighbours can only be told by their edges", fix=fix)


def _void(images: Sequence[str]) -> Iterable[Finding]:
    if images:
        message = f"pixels of one value in every band, as nodata has, but not declared as such: {listed(images)}"
        fix = "if they are no data: gdal_edit.py -a_nodata VALUE IMAGE; else a model learns them as ground"
        yield Finding(severity="warning", message=message, fix=fix)


def _conventions(dataset: Dataset, config: DataConfig) -> Iterable[Finding]:
    """Numbers that look shifted or mixed; and whose numbers they are, where nobody has named the classes."""
    try:
        found = doubts(dataset, config)
    except TerraleanError:
        return  # labels that cannot be counted, or groups that are not listed, are findings of their own
    for doubt in found:
        stops = doubt.kind == "error" or (doubt.kind == "doubt" and not config.trust_labels)
        yield Finding(severity="error" if stops else "warning", message=doubt.message)
    numbers = dataset.coding.numbers(len(dataset.classes))
    whose = familiar_set(numbers)
    if whose is not None and dataset.classes.names == tuple(f"class {number}" for number in numbers):
        fix = f"if they are these: {settings({'label_values': whose.values, 'ignore': whose.ignored})}"
        yield Finding(severity="note", message=f"the labels hold the numbers of {whose.name}", fix=fix)


# Split and leaks.


def _with_split(
    report: DatasetReport, dataset: Dataset, config: DataConfig, *, seed: int
) -> tuple[DatasetReport, list[Finding]]:
    try:
        split = make_split(dataset, config, seed=seed)
    except TerraleanError as error:
        return report, [Finding(severity="error", message=str(error))]
    leakage = check_leakage(split)
    shares = _split_shares(split, dataset, config)
    findings = list(_unlearnt(shares, dataset, split.method))
    if leakage.leaks:
        fix = {
            "given": "give images that share ground, or a group, to one split; or set data.split.rule",
            "groups": "name what belongs together in index.csv (group) or with data.group",
            "blocks": "make data.split.gap_px (gap_m) larger; tell which images belong together with data.group",
            "random": "use data.split.rule=blocks; a score on this split says little about other ground",
        }[split.method]
        findings.append(Finding(severity="warning", message=leakage.verdict, fix=fix))
    return replace(report, splits=shares, rule=split.rule, leakage=leakage.verdict, leaked_share=leakage.share), findings


def _split_shares(split: Split, dataset: Dataset, config: DataConfig) -> dict[SplitName, SplitShare]:
    reader, out = Reader(classes=dataset.classes, coding=dataset.coding, config=config), {}
    for name in NAMES:
        regions = split.of(name)
        counts = np.zeros(len(dataset.classes) + 1, dtype=np.int64)
        for region in regions:
            counts += label_counts(region.image, region.label, region.window, reader)
        out[name] = SplitShare(
            images=len({region.image for region in regions}),
            regions=len(regions),
            pixels=sum(region.window.pixels for region in regions),
            class_pixels=tuple(counts[:-1].tolist()),
        )
    return out


_TO_HAVE_IT = {
    "given": "give an image that has it to that split, or let terralean deal: --set data.split.rule=blocks",
    "groups": "another seed, smaller groups, or more labels",
    "blocks": "another seed, smaller blocks (data.split.block_px), or more labels",
    "random": "another seed, or more labels",
}


def _unlearnt(shares: dict[SplitName, SplitShare], dataset: Dataset, method: str) -> Iterable[Finding]:
    """Classes that some split lacks although the dataset has them."""
    have = np.sum([share.class_pixels for share in shares.values()], axis=0)
    for name, share in shares.items():
        lacking = [
            c
            for c, mine, all_of_it in zip(dataset.classes.names, share.class_pixels, have, strict=True)
            if all_of_it and not mine
        ]
        if lacking and share.regions:
            message = f"the {name} split has no pixel of {', '.join(lacking)}"
            fix = _TO_HAVE_IT[method]
            yield Finding(severity="error" if name == "train" else "note", message=message, fix=fix)

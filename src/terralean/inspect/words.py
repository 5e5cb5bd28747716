"""Reports as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from terralean.data.words import listed
from terralean.inspect.cubes import CubesReport
from terralean.inspect.dataset import DatasetReport
from terralean.inspect.describe import Report
from terralean.inspect.finding import Finding
from terralean.inspect.labelled import LabelledReport
from terralean.inspect.library import LibraryReport
from terralean.inspect.objects import ObjectsReport
from terralean.inspect.run import RunReport
from terralean.inspect.scene import BandValues, SceneReport, percent
from terralean.inspect.spectral import SpectralFacts
from terralean.predict.artefact import Manifest
from terralean.raster.cube import span
from terralean.spec import Bands
from terralean.weights.card import CALIBRATION, Card
from terralean.weights.curve import KEY as CURVE

LABEL_WIDTH = 11
MANY = 16  # bands, from which they are not told one by one
MANY_CLASSES = 60  # of images


def tell(report: Report) -> str:
    """The report in lines of text, findings last."""
    if isinstance(report, SceneReport):
        lines = _scene(report)
    elif isinstance(report, DatasetReport):
        lines = _dataset(report)
    elif isinstance(report, LabelledReport):
        lines = _labelled(report)
    elif isinstance(report, CubesReport):
        lines = _cubes(report)
    elif isinstance(report, LibraryReport):
        lines = _library(report)
    elif isinstance(report, ObjectsReport):
        lines = _objects(report)
    else:
        lines = _run(report)
    return "\n".join([*lines, *_findings(report.findings)])


def _scene(report: SceneReport) -> Iterable[str]:
    yield f"{report.path}: scene, {report.driver}"
    yield _line("size", f"{report.width:,} x {report.height:,} px (width x height)")
    yield _line("bands", _bands(report.bands))
    yield from _spectral(report.spectral) if report.spectral else ()
    if report.crs:
        where = report.crs if report.crs.startswith("EPSG") else "no EPSG code"
        yield _line("CRS", f"{report.crs_name} ({where})")
    if report.pixel_m:
        area = f", {report.area_km2:,.4g} km2" if report.area_km2 is not None else ""
        yield _line("pixel", f"{report.pixel_m[0]:.4g} x {report.pixel_m[1]:.4g} m{area}")
    if report.spectral and report.spectral.labels:
        yield _line("labels", report.spectral.labels)
    share = "not read" if report.nodata_share is None else f"{percent(report.nodata_share)} of the pixels in view"
    yield _line("nodata", f"{share} (value {report.nodata or 'none'})")
    yield _line("on disk", f"blocks of {report.block_px[0]} x {report.block_px[1]} px (height x width), {_stored(report)}")
    yield from _values(report.values)


def _spectral(facts: SpectralFacts) -> Iterable[str]:
    """Wavelengths, bad bands, and what is known of the scene."""
    if facts.range_nm:
        spacing = f", {facts.spacing_nm:.3g} nm apart" if facts.spacing_nm else ""
        widths = f", {facts.fwhm_nm[0]:.3g} to {facts.fwhm_nm[1]:.3g} nm wide" if facts.fwhm_nm else ""
        yield _line("spectrum", f"{facts.range_nm[0]:g} to {facts.range_nm[1]:g} nm{spacing}{widths}")
        for low, high in facts.gaps_nm:
            yield _line("gap", f"{low:g} to {high:g} nm")
    elif facts.bands_in_file > 1:
        yield _line("spectrum", "wavelengths not known")
    if facts.bad:
        yield _line("bad bands", f"{span(facts.bad)} of {facts.bands_in_file}, left out unless chosen")
    if facts.scene:
        yield _line("known as", facts.scene)
    if facts.file:
        yield _line("file", f"as published: {facts.file}")


def _objects(report: ObjectsReport) -> Iterable[str]:
    yield f"{report.path}: images with oriented objects{f', {report.layout}' if report.layout else ''}"
    if not report.images:
        return
    sizes = " x ".join(
        f"{low:,} to {high:,}" if low < high else f"{low:,}" for low, high in (report.widths_px, report.heights_px)
    )
    yield _line("images", f"{report.images:,} of {sizes} px (width x height), {report.empty:,} without objects")
    if report.splits:
        yield _line("splits", ", ".join(f"{name} {count:,}" for name, count in report.splits))
    low, middle, high = report.sides_px
    yield _line("objects", f"{report.objects:,}, {report.difficult:,} of them difficult")
    yield _line("sides", f"the shorter ones {low:.3g} to {high:.4g} px, half of them below {middle:.3g}")
    yield _line("classes", ", ".join(f"{name} {count:,}" for name, count in report.classes))
    yield _line("tiles", f"{report.tiles:,} with objects, as training would cut the images")


def _library(report: LibraryReport) -> Iterable[str]:
    yield f"{report.path}: spectral library"
    yield _line("spectra", f"{report.spectra:,} of {report.bands} bands: {listed(report.names)}")
    if report.range_nm:
        yield _line("spectrum", f"{report.range_nm[0]:g} to {report.range_nm[1]:g} nm")
    low, high = report.value_range
    yield _line("values", f"{low:.5g} to {high:.5g} in steps of {report.scale:g}")


def _dataset(report: DatasetReport) -> Iterable[str]:
    yield f"{report.root}: dataset, {report.layout}"
    if report.bands is None:
        return
    small, large = ("? x ?" if size is None else f"{size[1]} x {size[0]}" for size in (report.smallest_px, report.largest_px))
    yield _line("images", f"{report.images}, {small}{'' if small == large else f' to {large}'} px (width x height)")
    yield _line("bands", _bands(report.bands))
    yield _line("CRS", ", ".join("none" if crs is None else crs.split("[")[0] for crs in report.crs))
    for share in report.classes if any(share.pixels for share in report.classes) else ():  # not counted where labels fail
        yield _line("class", f"{share.name}: {share.share:.2%} of the labels, {share.pixels:,} px")
    if report.ignored_share is not None and report.nodata_share is not None:
        yield _line("unlabelled", f"{report.ignored_share:.1%} of the pixels; nodata: {percent(report.nodata_share)}")
    yield from _values(report.values)
    for name, split in report.splits.items():
        yield _line(name, f"{split.pixels:,} px in {split.regions} windows of {split.images} images")
    if report.rule:
        yield _line("split", report.rule)
    if report.leakage and not any(finding.message == report.leakage for finding in report.findings):
        yield _line("leakage", report.leakage)


def _cubes(report: CubesReport) -> Iterable[str]:
    yield f"{report.root}: {report.layout}"
    for cube in report.cubes:
        labels = "no labels" if cube.labels is None else f"labels {cube.labels}"
        yield _line("cube", f"{cube.image}, {cube.width:,} x {cube.height:,} px (width x height), {labels}")
    for scene in report.scenes[:1]:
        yield _line("bands", _bands(scene.bands))
        yield from _spectral(scene.spectral) if scene.spectral else ()
        yield _line("CRS", "none" if scene.crs is None else scene.crs.split("[")[0])
        yield from _values(scene.values)
    for share in report.classes:
        yield _line("class", f"{share.name}: {share.share:.2%} of the labels, {share.pixels:,} px")
    if report.unlabelled_share is not None:
        yield _line("unlabelled", f"{report.unlabelled_share:.1%} of the pixels")
    for name, count in report.splits.items():
        yield _line(name, f"{count:,} px")
    if report.rule:
        yield _line("split", report.rule)
    if report.leakage and not any(finding.message == report.leakage for finding in report.findings):
        yield _line("leakage", report.leakage)


def _labelled(report: LabelledReport) -> Iterable[str]:
    yield f"{report.root}: labelled images, a class for each as a whole; {report.layout}"
    if report.bands is None or report.median_px is None:
        return
    yield _line("images", f"{report.images:,}, {_sizes(report)} px (width x height)")
    yield _line("bands", _bands(report.bands))
    yield _line("classes", f"{len(report.classes)}, {_ends(report)}")
    for share in report.classes if len(report.classes) <= MANY_CLASSES else ():
        yield _line("class", f"{share.name}: {share.images:,} images, {share.share:.2%}")
    for band in report.values if len(report.values) <= MANY else ():
        yield _line("values", f"{band.name}: mean {band.mean:.5g}, spread {band.std:.5g}")
    for name, split in report.splits.items():
        yield _line(name, f"{split.images:,} images")
    if report.rule:
        yield _line("split", report.rule)
    if report.leakage and not any(finding.message == report.leakage for finding in report.findings):
        yield _line("leakage", report.leakage)


def _ends(report: LabelledReport) -> str:
    """The classes with the least and the most images."""
    by_count = sorted(report.classes, key=lambda share: share.images)
    least, most = by_count[0], by_count[-1]
    if least.images == most.images:
        return f"{least.images:,} images each"
    return f"least images {least.images:,} ({least.name}), most {most.images:,} ({most.name})"


def _sizes(report: LabelledReport) -> str:
    sizes = (report.smallest_px, report.median_px, report.largest_px)
    least, median, largest = (f"{size[1]:,} x {size[0]:,}" for size in sizes if size is not None)
    return least if least == largest else f"{least} to {largest}, median {median}"


def _run(report: RunReport) -> Iterable[str]:
    kind = "run" if report.exported is None else "export"
    yield f"{report.path}: {kind}, {'finished' if report.finished else 'not finished'}"
    card = report.card
    if report.exported is not None:
        yield _line("export", _export(report.exported))
    if card is not None:
        yield _line("model", f"{card.model} for {card.task}, {report.weights_mb or 0:g} MB, terralean {card.version}")
        yield _line("bands", _bands(card.bands))
        names = card.classes.names
        yield _line("classes", f"{len(names)}: {listed(names)}" if len(names) > MANY_CLASSES else ", ".join(names))
        if card.task == "classification":
            seen = f", seen at {card.seen_px} px" if card.seen_px else ""
            yield _line("cells", f"{card.tile_px - card.overlap_px} px, in the middle of views of {card.tile_px} px{seen}")
        yield _line("trained", f"{card.length}, {card.training.minutes:g} min, seed {card.training.seed}")
        yield _line("split", card.training.split)
        if not card.training.leakage.startswith("LEAKS"):  # else it is a finding
            yield _line("leakage", card.training.leakage)
        for name, metrics in card.metrics.items():
            if name == CURVE:
                yield _line(name, f"{len(metrics)} settings of speed and accuracy, for terralean map --budget")
            elif name != CALIBRATION:
                yield _line(name, _numbers(metrics))
        yield _line("confidence", _confidence(card))
    if report.data is not None:
        yield _line("data", report.data)


def _export(manifest: Manifest) -> str:
    found = manifest.agreement
    near = "" if found is None else f"; {found.words()} as the run on {found.source}"
    fixed = "".join(f", {axis} {size}" for axis, size in manifest.fixed.items())
    return f"for {manifest.target} in {manifest.precision}{fixed}{near}"


def _findings(findings: Sequence[Finding]) -> Iterable[str]:
    for finding in findings:
        yield f"{finding.severity}: {finding.message}"
        if finding.fix is not None:
            yield f"  fix: {finding.fix}"


def _line(name: str, text: str) -> str:
    return f"  {name:<{LABEL_WIDTH}} {text}"


def _bands(bands: Bands) -> str:
    names = ", ".join(bands.names) if len(bands) <= MANY else listed(bands.names)
    nm = [w for w in bands.wavelength_nm or () if w is not None]
    waves = f", {min(nm):g} to {max(nm):g} nm" if nm else ""
    return f"{len(bands)} x {bands.dtype} ({names}){waves}, {bands.units} in steps of {bands.scale:g}"


def _stored(report: SceneReport) -> str:
    packed = report.compression or "not compressed"
    return f"{packed}, " + (f"overviews {', '.join(map(str, report.overviews))}" if report.overviews else "no overviews")


def _values(values: Sequence[BandValues]) -> Iterable[str]:
    if len(values) > MANY:
        low, high = min(band.minimum for band in values), max(band.maximum for band in values)
        yield _line("values", f"{low:.5g} to {high:.5g} over all bands")
        return
    for band in values:
        yield _line("values", f"{band.name}: {band.minimum:.5g} to {band.maximum:.5g}, mean {band.mean:.5g}")


def _confidence(card: Card) -> str:
    """Whether it was calibrated, and how."""
    if card.not_calibrated:
        return f"not calibrated: {card.not_calibrated}"
    told = card.metrics.get(CALIBRATION, {})
    fitted = [f", fitted to {told[what]:,} validation {what}" for what in ("pixels", "images") if what in told]
    return f"temperature {card.temperature:.4g}{''.join(fitted)}"


def _numbers(metrics: object) -> str:
    """Scores by name; one with an interval is an entry with its value."""
    if not isinstance(metrics, dict):
        return str(metrics)
    values = {name: entry.get("value") if isinstance(entry, dict) else entry for name, entry in metrics.items()}
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, int | float))

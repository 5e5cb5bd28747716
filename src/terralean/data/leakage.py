"""Whether the pixels that judge a model were, in effect, seen in training. One sentence, with numbers."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from terralean.data.config import SplitName
from terralean.data.ground import Frame, frames, outline_m, pixel_units, placed
from terralean.data.reading import STRIP_PX
from terralean.data.seams import OPPOSITE, Edges, Side, find_seams, read_edges
from terralean.data.split import Region, Split
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene

SLIVER_PX = 1e-2  # overlaps and distances below this part of a pixel are rounding
SAMPLE_PX = 64  # side of the window by which identical images are suspected


@dataclass(frozen=True, kw_only=True, slots=True)
class Leakage:
    """What test (and validation) pixels share with training."""

    leaks: bool
    share: (
        float | None
    )  # of the test pixels (of validation where there is no test), those that training knows; None without any
    findings: tuple[str, ...]  # each leak, a clause with numbers
    checked: str  # what was compared, and how near the nearest training pixel is

    @property
    def verdict(self) -> str:
        """One sentence."""
        return f"LEAKS: {'; '.join(self.findings)}" if self.leaks else f"no leak found: {self.checked}"


@dataclass(frozen=True, kw_only=True)
class _Spot:
    """A region with its outline in metres (px without coordinates) in one of the frames."""

    region: Region
    frame: int
    outline: shapely.Polygon
    pixel: float  # longer side of a pixel in the same units
    gap: float
    whole: bool  # the region is all of its image


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A clause, and for each judged region the share of its pixels that it concerns (n,)."""

    clause: str
    share: NDArray[np.float64]


def check_leakage(split: Split) -> Leakage:
    """Compare test, and validation, with training: content, ground, groups, distance and, without coordinates, edges."""
    images = sorted({region.image for region in split.regions})
    grids = dict(zip(images, map(_grid, images), strict=True))
    planes = frames([grids[image] for image in images], reach_m=_reach(split, grids.values()))
    plane_of = {images[i]: n for n, frame in enumerate(planes) for i in frame.members}
    regions = [_place(region, grids[region.image], plane_of[region.image], planes, split) for region in split.regions]
    twins = _twins(images, grids)
    edges = {image: read_edges(image) for image in images if not placed(grids[image])} if len(images) > 1 else {}
    train = [spot for spot in regions if spot.region.split == "train"]
    findings, checked, shares = [], [], {}
    judges: tuple[SplitName, ...] = ("test", "validation")
    for name in judges:
        judged = [spot for spot in regions if spot.region.split == name]
        if judged and train:
            found, words = _compare(judged, train, name, planes, twins, edges)
            findings += [item.clause for item in found]
            checked.append(words)
            shares[name] = _share(judged, found)
    return Leakage(
        leaks=bool(findings),
        share=shares.get("test", shares.get("validation")),
        findings=tuple(findings),
        checked="; ".join(checked) or "there is nothing to compare, no test and no validation pixels",
    )


def duplicates(images: Sequence[str]) -> list[tuple[str, ...]]:
    """Sets of files with identical pixels, decoded."""
    return [same for same in _twins(images, {image: _grid(image) for image in images}) if len(same) > 1]


def _compare(
    judged: Sequence[_Spot],
    train: Sequence[_Spot],
    name: SplitName,
    planes: Sequence[Frame],
    twins: Sequence[tuple[str, ...]],
    edges: dict[str, Edges],
) -> tuple[list[_Found], str]:
    overlap, distance = _nearness(judged, train)
    found = [
        _identical(judged, train, name, twins),
        _overlapping(judged, overlap, name, planes),
        _grouped(judged, train, name),
        _adjoining(judged, overlap, distance, name, planes),
        _continuing(judged, train, name, edges),
    ]
    return [item for item in found if item is not None], _checked(judged, train, distance, name, planes)


# The five checks.


def _identical(judged: Sequence[_Spot], train: Sequence[_Spot], name: str, twins: Sequence[tuple[str, ...]]) -> _Found | None:
    same = {image: set(twin) - {image} for twin in twins for image in twin}
    trained = {spot.region.image for spot in train}
    hit = np.array([bool(same[spot.region.image] & trained) for spot in judged])
    pair = next(((p.region.image, min(same[p.region.image] & trained)) for p, h in zip(judged, hit, strict=True) if h), None)
    return pair and _found(
        judged, hit, name, f"the same pixels as a training image ({_short(pair[0])} = {_short(pair[1])})", verb="hold"
    )


def _overlapping(judged: Sequence[_Spot], overlap: NDArray[np.float64], name: str, planes: Sequence[Frame]) -> _Found | None:
    tiny = np.array([(SLIVER_PX * spot.pixel) ** 2 for spot in judged])
    if not (overlap > tiny).any():
        return None
    share = np.where(overlap > tiny, overlap / [spot.outline.area for spot in judged], 0)
    areas = [(overlap[i], planes[spot.frame].crs) for i, spot in enumerate(judged)]
    square_m, square_px = (sum(area for area, crs in areas if bool(crs) is located) for located in (True, False))
    size = " and ".join(f"{area:,.0f} {unit}" for area, unit in ((square_m, "m2"), (square_px, "px")) if area)
    pixels = _weights(judged)
    clause = f"{size} of the {name} ground ({(share * pixels).sum() / pixels.sum():.1%} of its pixels) are training ground too"
    return _Found(clause=clause, share=share)


def _grouped(judged: Sequence[_Spot], train: Sequence[_Spot], name: str) -> _Found | None:
    groups = {spot.region.group for spot in train} - {None}
    hit = np.array([spot.region.group in groups for spot in judged])
    shared = sorted({str(spot.region.group) for spot, h in zip(judged, hit, strict=True) if h})
    return (
        _found(judged, hit, name, f"a group with training ({len(shared)} groups, {shared[0]} for one)", verb="share")
        if shared
        else None
    )


def _adjoining(
    judged: Sequence[_Spot], overlap: NDArray[np.float64], distance: NDArray[np.float64], name: str, planes: Sequence[Frame]
) -> _Found | None:
    pixel = np.array([spot.pixel for spot in judged])
    need = np.maximum(np.array([spot.gap for spot in judged]), pixel) - SLIVER_PX * pixel
    hit = (distance < need) & (overlap <= (SLIVER_PX * pixel) ** 2)
    if not hit.any():
        return None
    touching = distance[hit].max() <= SLIVER_PX * pixel[hit].max()
    nearest = _nearest(judged, np.where(hit, distance, np.inf), planes)
    return _found(
        judged,
        hit,
        name,
        "training pixels" if touching else f"training pixels, the nearest {nearest} away",
        verb="touch" if touching else "nearly touch",
    )


def _continuing(judged: Sequence[_Spot], train: Sequence[_Spot], name: str, edges: dict[str, Edges]) -> _Found | None:
    """Images joined at a seam leak where the region of either reaches the joined side."""
    mine = [edges[image] for image in sorted({spot.region.image for spot in judged}) if image in edges]
    theirs = [edges[image] for image in sorted({spot.region.image for spot in train}) if image in edges]
    seams = find_seams(mine, theirs)
    at_side = {(spot.region.image, side) for spot in train if spot.region.image in edges for side in _sides(spot, edges)}
    joined = {(seam.one, seam.side): seam for seam in seams if (seam.other, OPPOSITE[seam.side]) in at_side}
    hits = [
        [joined[key] for side in _sides(p, edges) if (key := (p.region.image, side)) in joined]
        if p.region.image in edges
        else []
        for p in judged
    ]
    if not any(hits):
        return None
    first = next(seams[0] for seams in hits if seams)
    text = f"a training image at the edge ({_short(first.one)} goes on at its {first.side} in {_short(first.other)})"
    return _found(judged, np.array([bool(seams) for seams in hits]), name, text, verb="continue")


def _sides(spot: _Spot, edges: dict[str, Edges]) -> list[Side]:
    """The sides of the image that the region reaches."""
    window, lines = spot.region.window, edges[spot.region.image].lines
    high, wide = lines["left"].shape[1], lines["top"].shape[1]
    reached: dict[Side, bool] = {
        "top": window.row <= 0,
        "bottom": window.row + window.height >= high,
        "left": window.col <= 0,
        "right": window.col + window.width >= wide,
    }
    return [side for side, there in reached.items() if there]


def _found(judged: Sequence[_Spot], hit: NDArray[np.bool_], name: str, text: str, *, verb: str) -> _Found | None:
    kind = "images" if all(spot.whole for spot in judged) else "windows"
    count = int(hit.sum())
    return _Found(clause=f"{count} of {len(judged)} {name} {kind} {verb} {text}", share=hit.astype(float)) if count else None


# Ground.


def _place(region: Region, grid: Grid, frame: int, planes: Sequence[Frame], split: Split) -> _Spot:
    plane = planes[frame]
    pixel = max(size * metres for size, metres in zip(pixel_units(grid, plane), plane.metres, strict=True))
    in_metres = split.gap_m is not None and plane.crs is not None
    return _Spot(
        region=region,
        frame=frame,
        outline=outline_m(grid, plane, region.window),
        pixel=pixel,
        gap=float(split.gap_m) if in_metres else split.gap_px * pixel,  # type: ignore[arg-type]
        whole=region.window == grid.window,
    )


def _nearness(judged: Sequence[_Spot], train: Sequence[_Spot]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each judged region (n,): area shared with training, and distance to the nearest training pixel (inf: other frame)."""
    overlap, distance = np.zeros(len(judged)), np.full(len(judged), np.inf)
    by_frame = defaultdict(list)
    for spot in train:
        by_frame[spot.frame].append(spot.outline)
    trees = {frame: shapely.STRtree(outlines) for frame, outlines in by_frame.items()}
    for i, spot in enumerate(judged):
        if spot.frame not in trees:
            continue
        outlines, tree = by_frame[spot.frame], trees[spot.frame]
        distance[i] = spot.outline.distance(outlines[tree.nearest(spot.outline)])
        if distance[i] <= 0:
            hit = [outlines[j] for j in tree.query(spot.outline, predicate="intersects")]
            overlap[i] = spot.outline.intersection(shapely.union_all(hit)).area
    return overlap, distance


def _reach(split: Split, grids: Iterable[Grid]) -> float:
    pixel = max((max(grid.pixel_m() or (0,)) for grid in grids if placed(grid)), default=0.0)
    return max(split.gap_m or 0, split.gap_px * pixel) * 2 + 1000  # a kilometre more, so that the nearest can be told


# Content.


def _twins(images: Sequence[str], grids: dict[str, Grid]) -> list[tuple[str, ...]]:
    """Images sorted into sets of identical decoded pixels; each image is in one set."""
    suspects = defaultdict(list)
    for image in images:
        suspects[_digest(image, [_middle(grids[image])])].append(image)
    out: list[tuple[str, ...]] = []
    for alike in suspects.values():
        same = defaultdict(list)
        for image in alike:
            same[_digest(image, _rows(grids[image])) if len(alike) > 1 else ""].append(image)
        out += [tuple(twin) for twin in same.values()]
    return out


def _digest(image: str, windows: Iterable[Window]) -> str:
    digest = hashlib.sha256()
    with open_scene(image) as scene:
        digest.update(f"{scene.grid.width} {scene.grid.height} {len(scene.bands)} {scene.bands.dtype}".encode())
        for window in windows:
            digest.update(np.ascontiguousarray(scene.read(window)[0]).tobytes())
    return digest.hexdigest()


def _middle(grid: Grid) -> Window:
    middle = Window(
        row=max(0, (grid.height - SAMPLE_PX) // 2), col=max(0, (grid.width - SAMPLE_PX) // 2), height=SAMPLE_PX, width=SAMPLE_PX
    )
    return middle.cut(grid.window)


def _rows(grid: Grid) -> Iterable[Window]:
    step = max(1, STRIP_PX // grid.width)
    for row in range(0, grid.height, step):
        yield Window(row=row, col=0, height=min(step, grid.height - row), width=grid.width)


def _grid(image: str) -> Grid:
    with open_scene(image) as scene:
        return scene.grid


# Words and shares.


def _share(judged: Sequence[_Spot], found: Sequence[_Found]) -> float:
    """Of the judged pixels, those that some finding concerns."""
    worst = np.max([np.zeros(len(judged)), *(item.share for item in found)], axis=0)
    pixels = _weights(judged)
    return float((worst * pixels).sum() / pixels.sum())


def _weights(judged: Sequence[_Spot]) -> NDArray[np.float64]:
    return np.array([spot.region.window.pixels for spot in judged], dtype=float)


def _checked(
    judged: Sequence[_Spot], train: Sequence[_Spot], distance: NDArray[np.float64], name: str, planes: Sequence[Frame]
) -> str:
    unplaced = _unplaced(judged, train, name, planes)
    if np.isfinite(distance).any():
        return f"the nearest training pixel is {_nearest(judged, distance, planes)} from any {name} pixel{unplaced}"
    mine, theirs = (len({spot.region.image for spot in side}) for side in (judged, train))
    located = not unplaced and planes[judged[0].frame].crs
    near = "lies within a kilometre of" if located else "repeats or continues"
    return f"none of {mine} {name} images {near} one of {theirs} training images{unplaced}"


def _unplaced(judged: Sequence[_Spot], train: Sequence[_Spot], name: str, planes: Sequence[Frame]) -> str:
    """What cannot be known where some images have coordinates and others have none."""
    sides = {f"{name} images": judged, "training images": train}
    placed_of = {
        words: {spot.region.image: planes[spot.frame].crs is not None for spot in spots} for words, spots in sides.items()
    }
    if len({there for images in placed_of.values() for there in images.values()}) == 1:
        return ""
    without = {words: list(images.values()).count(False) for words, images in placed_of.items()}
    told = " and ".join(f"{count} of {len(placed_of[words])} {words}" for words, count in without.items() if count)
    return f"; {told} have no coordinates, so that nobody can tell how near they lie"


def _nearest(judged: Sequence[_Spot], distance: NDArray[np.float64], planes: Sequence[Frame]) -> str:
    """The least distance, in metres where there are any."""
    located = np.array([planes[spot.frame].crs is not None for spot in judged])
    use = located if np.isfinite(distance[located]).any() else ~located
    return f"{distance[use].min():,.4g} {'m' if located[use].any() else 'px'}"


def _short(image: str) -> str:
    return image.rsplit("/", 1)[-1]

"""Oriented boxes apart from any network: how exact their overlap, how fast suppression, whether windows lose or double any.

OMP_NUM_THREADS=1 python benchmarks/box_geometry.py iou          100,000 pairs of boxes beside shapely
OMP_NUM_THREADS=1 python benchmarks/box_geometry.py nms          suppression of 20,000 boxes; on a quiet machine
OMP_NUM_THREADS=1 python benchmarks/box_geometry.py mosaic RUNS  a detector without mistakes over a large mosaic

Results are `results/detection_*.csv`; RUNS is where the mosaic and its map are put.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
import torch
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow
from torch import Tensor, nn

import terralean
from terralean.benchmark.files import write_table
from terralean.boxes.clip import clip
from terralean.boxes.detected import Detected
from terralean.boxes.form import areas, corners, hull, le90
from terralean.boxes.near import near
from terralean.boxes.overlap import paired_iou
from terralean.boxes.suppress import nms
from terralean.cost.memory import peak_memory
from terralean.cost.timing import TimingConfig, spread, time_interleaved
from terralean.mapping.boxes_run import BoxesConfig, find_boxes
from terralean.mapping.plan import Plan as MapPlan
from terralean.mapping.scenes import as_source
from terralean.predict import Predictor
from terralean.raster.grid import Grid
from terralean.spec import Bands, Classes, Normalisation
from terralean.weights.card import Card, Training

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]

# Rotated IoU.

PAIRS = 100_000


def pairs(count: int, *, seed: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Boxes and others of each kind, float64, `count` pairs in all; random ones are every second pair."""
    generator = torch.Generator().manual_seed(seed)
    kinds = list(_hard(_random(1, generator)))
    each = count // 2 // len(kinds)
    yield "random", _random(count - each * len(kinds), generator), _random(count - each * len(kinds), generator)
    for kind in kinds:
        boxes = _random(each, generator)
        yield kind, boxes, _hard(boxes)[kind]


def _random(count: int, generator: torch.Generator) -> Tensor:
    """Boxes of 4 to 60 px in a square of 60 px, so that most pairs meet."""
    x, y, width, height, angle = torch.rand(5, count, generator=generator, dtype=torch.float64)
    return torch.stack([60 * x, 60 * y, 4 + 56 * width, 4 + 56 * height, math.pi * (angle - 0.5)], dim=1)


def _hard(boxes: Tensor) -> dict[str, Tensor]:
    """What is difficult for polygon clipping, beside each box."""
    x, y, width, height, angle = boxes.unbind(1)
    along, across = torch.stack([angle.cos(), angle.sin()], dim=1), torch.stack([-angle.sin(), angle.cos()], dim=1)
    middle, size, zero = boxes[:, :2], boxes[:, 2:4], torch.zeros_like(width)

    def other(centre: Tensor = middle, sides: Tensor = size, turn: float = 0.0) -> Tensor:
        return torch.cat([centre, sides, (angle + turn)[:, None]], dim=1)

    return {
        "identical": boxes.clone(),
        "identical by its other name": torch.stack([x, y, height, width, angle + math.pi / 2], dim=1),
        "turned by 1e-9": other(turn=1e-9),
        "turned by 1e-5": other(turn=1e-5),
        "crossed in the middle": other(turn=math.pi / 4),
        "touching along an edge": other(middle + along * width[:, None]),
        "touching at a corner": other(middle + along * width[:, None] + across * height[:, None]),
        "contained": other(sides=size / 3),
        "contained, edge shared": other(middle + along * width[:, None] / 4, size / 2),
        "a speck": other(sides=size * 1e-4),
        "a needle": other(sides=size * torch.tensor([40.0, 1e-3]), turn=0.7),
        "no width": other(sides=torch.stack([width, zero], dim=1)),
        "a point": other(sides=torch.stack([zero, zero], dim=1)),
    }


def measure_iou() -> None:
    """The largest error by kind, and what rounding boxes to float32 changes."""
    rows: list[Row] = []
    for kind, boxes, others in pairs(PAIRS, seed=0):
        ours, theirs = paired_iou(boxes, others).numpy(), _by_shapely(boxes, others)
        single = paired_iou(boxes.float(), others.float()).double().numpy()
        rows.append(
            {
                "kind": kind,
                "pairs": len(boxes),
                "pairs_that_overlap": int((theirs > 0).sum()),
                "largest_error": float(np.abs(ours - theirs).max()),
                "float32_boxes_largest_difference": float(np.abs(single - ours).max()),
                "shapely": shapely.__version__,
                "geos": shapely.geos_version_string,
            }
        )
        print(rows[-1])  # noqa: T201 - a script's result
    write_table(rows, RESULTS / "detection_iou.csv", columns=rows[0])


def _by_shapely(boxes: Tensor, others: Tensor) -> NDArray[np.float64]:
    """IoU (n,), 0 where both have no area."""
    mine, theirs = (shapely.polygons(corners(some).numpy()) for some in (boxes, others))
    shared = shapely.area(shapely.intersection(mine, theirs))
    union = shapely.area(mine) + shapely.area(theirs) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


# Suppression.

BOXES = 20_000
ROUNDS = TimingConfig(rounds=7, seconds=0.5)


def measure_nms() -> None:
    """Seconds and memory of 20,000 boxes as a detector finds them: ten for each object, or spread evenly."""
    generator, rows = torch.Generator().manual_seed(0), []
    cases = {"ten round each object": _crowd(generator, each=10), "evenly spread": _crowd(generator, each=1)}
    scores = torch.rand(BOXES, generator=generator)
    calls = {name: partial(nms, boxes, scores, iou_threshold=0.1) for name, boxes in cases.items()}
    timed = time_interleaved(calls, config=ROUNDS, order=random.Random(0))
    for name, call in calls.items():
        wall, processor = (spread(times) for times in (timed.timings[name].wall_s, timed.timings[name].processor_s))
        rows.append(
            {
                "boxes": BOXES,
                "layout": name,
                "kept": len(call()),
                "iou_threshold": 0.1,
                "wall_s": round(wall.median, 3),
                "wall_s_low": round(wall.low, 3),
                "wall_s_high": round(wall.high, 3),
                "processor_s": round(processor.median, 3),
                "peak_mb": round((peak_memory(call, device=torch.device("cpu")) or 0) / 1e6, 1),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
        print(rows[-1])  # noqa: T201 - a script's result
    write_table(rows, RESULTS / "detection_nms.csv", columns=rows[0])


def _crowd(generator: torch.Generator, *, each: int) -> Tensor:
    """Boxes in 4000 x 4000 px, float32, `each` of them nearly alike."""
    x, y, width, height, angle = torch.rand(5, BOXES // each, generator=generator).repeat_interleave(each, dim=1)
    boxes = torch.stack([4000 * x, 4000 * y, 12 + 50 * width, 8 + 16 * height, math.pi * (angle - 0.5)], dim=1)
    return le90(boxes + torch.randn(BOXES, 5, generator=generator) * torch.tensor([2.0, 2.0, 1.0, 1.0, 0.05]) * (each > 1))


# A mosaic.

WIDE, HIGH, WINDOW, SHARED = 12_000, 9_000, 1024, 200
OBJECTS, LARGEST_PX, LARGE = 8_000, 1_300.0, 0.01  # the last: share of objects of 300 px and more
HALF = 0.5  # IoU of what is found with what is there, from which on it is found
KINDS = ("long", "round", "small")


class Perfect(nn.Module):
    """Finds in each window what the window leaves of each object, with any score. Pixels say where the window lies."""

    def __init__(self, truth: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.truth, self.labels, self.hulls = truth, labels, hull(truth)

    def forward(self, image: Tensor) -> list[Detected]:
        """image (B, 3, H, W): column and row of each pixel."""
        return [self._found(int(one[0, 0, 0]), int(one[1, 0, 0])) for one in image]

    def _found(self, left: int, top: int) -> Detected:
        window = torch.tensor([[left, top, min(left + WINDOW, WIDE), min(top + WINDOW, HIGH)]], dtype=torch.float64)
        some = torch.cat([j for _, j in near(window, self.hulls)])
        boxes, share = clip(self.truth[some], window[0])
        there = (share > 0) & (areas(boxes) >= 1)
        scores = torch.rand(len(some), generator=torch.Generator().manual_seed(WIDE * top + left)) * 0.9 + 0.1
        moved = boxes[there] - torch.tensor([left, top, 0, 0, 0])
        return Detected(moved.float(), scores[there], self.labels[some][there])


def measure_mosaic(runs: Path) -> None:
    """Objects over the borders of windows: lost, doubled, and how well they lie."""
    truth = _scattered(seed=0)
    labels = torch.arange(len(truth)) % len(KINDS)
    path = runs / "mosaic.tif"
    if not path.is_file():
        _write_places(path)
    card = Card(
        version=terralean.__version__,
        task="detection",
        model="orcnn",
        bands=Bands(names=("column", "row", "none"), dtype="uint16"),
        training=Training(data="0" * 16, images=1, split="all", leakage="none", steps=0, minutes=0.0, seed=0),
        classes=Classes.named(KINDS),
        normalisation=Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3),
        tile_px=WINDOW,
        overlap_px=SHARED,
    )
    predictor = Predictor(Perfect(truth, labels), card, device=torch.device("cpu"), precision="fp32")
    began = time.process_time()
    result = find_boxes(predictor, as_source(path), out=runs / "mosaic", config=BoxesConfig(overwrite=True))
    row = _compared(truth, labels, Path(result.path)) | {
        "windows": result.windows,
        "window_px": WINDOW,
        "overlap_px": SHARED,
        "mosaic_px": f"{WIDE} x {HIGH}",
        "processor_s": round(time.process_time() - began, 1),
    }
    print(row)  # noqa: T201 - a script's result
    write_table([row], RESULTS / "detection_mosaic.csv", columns=row)


def _scattered(*, seed: int) -> Tensor:
    """Boxes of 8 px to larger than a window, none nearer than 2 px to another, all within the mosaic."""
    rng, boxes = np.random.default_rng(seed), np.zeros((0, 5))
    while len(boxes) < OBJECTS:
        count = OBJECTS - len(boxes)
        usual, large = 8 * 25 ** rng.random(count), rng.uniform(300, LARGEST_PX, count)
        length = np.where(rng.random(count) < LARGE, large, usual)
        width = np.maximum(4, length * rng.uniform(0.08, 1, count))
        new = [*(rng.random((2, count)) * [[WIDE], [HIGH]]), length, width, rng.uniform(-1.57, 1.57, count)]
        boxes = _apart(np.concatenate([boxes, np.column_stack(new)]))
    return le90(torch.from_numpy(boxes))


def _apart(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those within the mosaic that are not too near to an earlier one."""
    shapes = shapely.polygons(corners(torch.from_numpy(boxes)).numpy())
    inside = shapely.within(shapes, shapely.box(0, 0, WIDE, HIGH))
    first, second = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=2.0)
    inside[np.maximum(first, second)[first != second]] = False
    return boxes[inside]


def _write_places(path: Path) -> None:
    """A raster whose pixels hold their own column and row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "zstd", "predictor": 2}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}
    with rasterio.open(path, "w", driver="GTiff", dtype="uint16", count=3, width=WIDE, height=HIGH, **layout, **place) as file:
        for row in range(0, HIGH, 512):
            rows = min(512, HIGH - row)
            y, x = np.mgrid[row : row + rows, :WIDE].astype(np.uint16)
            file.write(np.stack([x, y, np.ones_like(x)]), window=RasterioWindow(0, row, WIDE, rows))


def _compared(truth: Tensor, labels: Tensor, path: Path) -> Row:
    """What the GeoPackage holds beside what is there."""
    boxes, values = _boxes_in(path)
    best, which = torch.zeros(len(truth), dtype=torch.float64), torch.full((len(truth),), -1)
    for i, j in near(hull(truth), hull(boxes)):
        overlap = torch.where(labels[i] == values[j], paired_iou(truth[i], boxes[j]), 0.0)
        for place, found, value in zip(i.tolist(), j.tolist(), overlap.tolist(), strict=True):
            if value > best[place]:
                best[place], which[place] = value, found
    matched, (whole, cut) = best > HALF, _by_windows(truth)
    return {
        "objects": len(truth),
        "found": len(boxes),
        "lost": int((~matched).sum()),
        "doubled": len(boxes) - len(which[matched].unique()),
        "cut_by_a_window": int(cut.sum()),
        "in_no_window_whole": int((~whole).sum()),
        "lowest_iou": round(float(best.min()), 4),
        "mean_iou": round(float(best.mean()), 6),
    }


def _by_windows(truth: Tensor) -> tuple[Tensor, Tensor]:
    """Which objects (n,) a window holds whole, and of which one sees a part alone."""
    plan = MapPlan(grid=Grid(width=WIDE, height=HIGH, crs=None), tile_px=WINDOW, overlap_px=SHARED)
    whole, cut = (torch.zeros(len(truth), dtype=torch.bool) for _ in range(2))
    for window in (window for row in plan.rows for window in plan.row_of_windows(row)):
        sides = [window.col, window.row, min(window.col + WINDOW, WIDE), min(window.row + WINDOW, HIGH)]
        share = clip(truth, torch.tensor(sides, dtype=torch.float64))[1]
        whole |= share == 1
        cut |= (share > 0) & (share < 1)
    return whole, cut


def _boxes_in(path: Path) -> tuple[Tensor, Tensor]:
    """Boxes (n, 5) px and classes (n,) of a file of boxes."""
    meta, _, _, values = pyogrio.raw.read(path, read_geometry=False)
    columns = dict(zip(meta["fields"], values, strict=True))
    numbers = [columns[name] for name in ("x_px", "y_px", "width_px", "height_px")]
    boxes = np.stack([*numbers, np.deg2rad(columns["angle_deg"])], axis=1)
    return torch.from_numpy(boxes), torch.from_numpy(columns["value"]).long()


def main() -> None:
    """Parse and call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("iou", "nms", "mosaic"))
    parser.add_argument("runs", type=Path, nargs="?")
    given = parser.parse_args()
    if given.what == "mosaic":
        if given.runs is None:
            parser.error("RUNS is missing: the folder in which the mosaic and its map are put")
        measure_mosaic(given.runs)
    else:
        {"iou": measure_iou, "nms": measure_nms}[given.what]()


if __name__ == "__main__":
    main()

"""Oriented boxes: how exact, how fast, whether none is lost between windows, and what a small detector learns.

OMP_NUM_THREADS=1 python benchmarks/detection_study.py iou          100,000 pairs of boxes beside shapely
OMP_NUM_THREADS=1 python benchmarks/detection_study.py nms          suppression of 20,000 boxes; on a quiet machine
OMP_NUM_THREADS=1 python benchmarks/detection_study.py mosaic RUNS  a detector without mistakes over a large mosaic
OMP_NUM_THREADS=1 python benchmarks/detection_study.py generated RUNS [--way WAY]  harbours and car parks, unseen ones scored
OMP_NUM_THREADS=1 python benchmarks/detection_study.py overfit RUNS --data DOTA    crops of 256 px learned by heart
OMP_NUM_THREADS=1 python benchmarks/detection_study.py attention    what ways of attention in LeMeViT's third stage cost
OMP_NUM_THREADS=1 python benchmarks/detection_study.py larger RUNS  the run of `generated` on scenes of 1024 px
python benchmarks/detection_study.py figures RUNS                   PNGs of what was found, drawn from the GeoPackages

Results are `results/detection_*.csv`. DOTA is a folder with DOTA's `images/` and `labelTxt/`; RUNS is where data, runs and maps
are put, and where a killed training goes on. `overfit` and `larger` need the run of `generated`, `figures` needs both.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyogrio
import rasterio
import shapely
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rasterio.windows import Window as RasterioWindow
from torch import Tensor, nn

import terralean
from terralean import recipes
from terralean.benchmark.files import write_table
from terralean.boxes.clip import clip
from terralean.boxes.detected import Detected
from terralean.boxes.form import areas, corners, hull, le90
from terralean.boxes.near import near
from terralean.boxes.overlap import paired_iou
from terralean.boxes.suppress import nms
from terralean.cost.macs import count_macs_at, parameters
from terralean.cost.memory import peak_memory
from terralean.cost.timing import TimingConfig, spread, time_interleaved
from terralean.data.generated_objects import ObjectScenesConfig, generate_objects
from terralean.data.oriented.dota import write_labels
from terralean.data.oriented.layouts import ObjectsConfig, Picture, Pictures, find_objects
from terralean.data.oriented.tiles import Tile, TilesConfig, plan_tiles, tile_name
from terralean.evaluate.run import run_evaluation
from terralean.mapping.boxes_run import BoxesConfig, detections_of, find_boxes, search_scene
from terralean.mapping.plan import Plan as MapPlan
from terralean.mapping.scenes import as_source
from terralean.models import create
from terralean.predict import Predictor, load
from terralean.raster.grid import Grid
from terralean.raster.scene import describe, open_scene
from terralean.raster.write import write_scene
from terralean.spec import Bands, Classes, Normalisation
from terralean.tasks.detection_scores import DetectionScores, outcomes, score
from terralean.train.run import run
from terralean.weights.card import Card, Training, read_card

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
RECIPE = "detection_orcnn_lemevit_tiny"

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


# What a small detector learns.

CROP_PX, AT_LEAST = 256, 50
OVERFIT = (
    f"data.tile_px={CROP_PX}",
    "data.overlap_px=0",
    "data.augment={flips: false, rotate90: false}",
    "data.radiometry={brightness: 0.0, contrast: 0.0}",
    "train.batch=2",
    "train.precision=bf16",
)
OVERFIT_COURSE = ("train.epochs=200", "train.validate_every=40", "train.warmup_steps=10", "train.lr=0.0004")
GENERATED = (f"data.tile_px={CROP_PX}", "data.overlap_px=64", "train.batch=2", "train.precision=bf16")
GENERATED_COURSE = ("train.epochs=10", "train.validate_every=2", "train.warmup_steps=30", "train.lr=0.0006")
NARROW = {"width": 128, "hidden": 256, "proposals": 1000}  # of the head: two fifths of the time of a step
# Ways of attention in S3: windows are a half of what is trained on, as 512 px are of 1024.
WAYS: dict[str, Row] = {
    "global": {},
    "windows": {"s3_attention": "windows", "s3_window_px": 128},
    "meta": {"s3_attention": "meta"},
}
SCENES = {"train": 120, "val": 12, "test": 40}


def overfit(runs: Path, data: Path) -> None:
    """Crops with many objects, learned and found again; begun from what generated scenes have taught."""
    crops = runs / "crops"
    if not crops.is_dir():
        _write_crops(find_objects(data, ObjectsConfig()), crops)
    out = runs / "overfit"
    begin = (f"model.weights={runs / 'generated_global'}", f"model.sizes={json.dumps(NARROW)}")
    run(recipes.read(RECIPE, changes=[*OVERFIT, *OVERFIT_COURSE, *begin]), data=crops, out=out)
    row = _evaluated(out, data=crops / "val", into=runs / "overfit_found") | {"crop_px": CROP_PX}
    write_table([row], RESULTS / "detection_overfit.csv", columns=row)


def _write_crops(found: Pictures, out: Path) -> None:
    """Of each image the window with most objects, if there are enough: in train/, and in val/ with cut objects as difficult."""
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for picture in found.pictures:
        best = max(_windows(picture, cut="drop"), key=lambda tile: len(tile.objects))
        if len(best.objects) < AT_LEAST:
            continue
        judged = next(tile for tile in _windows(picture, cut="difficult") if tile.window == best.window)
        known = np.isin(judged.objects.labels, best.objects.labels)
        for split, objects in (("train", best.objects), ("val", judged.objects.of(known))):
            name = tile_name(Path(picture.record.image).stem, best.window)
            with describe(picture.record.image, expected="an image") as scene:
                values, _ = scene.read(best.window)
                path = part / split / "images" / f"{name}.tif"
                write_scene(path, values, grid=picture.grid.crop(best.window), bands=scene.bands, nodata=None)
            names = [found.classes.names[label] for label in objects.labels]
            write_labels(part / split / "labelTxt" / f"{name}.txt", objects.polygons, names, objects.difficult)
    part.rename(out)


def _windows(picture: Picture, *, cut: Literal["drop", "difficult"]) -> tuple[Tile, ...]:
    config = TilesConfig(size_px=CROP_PX, overlap_px=CROP_PX // 2, cut=cut)
    return plan_tiles(picture.record, width=picture.grid.width, height=picture.grid.height, config=config).tiles


def generated(runs: Path, way: str) -> None:
    """Train on generated scenes with a way of attention, score others."""
    data = runs / "scenes"
    for number, (split, count) in enumerate(SCENES.items()):
        if not (data / split).is_dir():
            generate_objects(data / split, count=count, seed=number)
    out = runs / f"generated_{way}"
    sizes = f"model.sizes={json.dumps(NARROW | WAYS[way])}"
    run(recipes.read(RECIPE, changes=[*GENERATED, *GENERATED_COURSE, sizes]), data=data, out=out)
    path = RESULTS / "detection_generated.csv"
    rows = [row for row in _read(path) if row["s3_attention"] != way]
    rows.append({"s3_attention": way} | _evaluated(out))
    write_table(rows, path, columns=rows[-1])


def _evaluated(folder: Path, *, data: Path | None = None, into: Path | None = None) -> Row:
    """Scores as `terralean evaluate RUN` has them, or with `--data DATA --out INTO`."""
    found = run_evaluation(folder, read=recipes.read_run, data=data, out=into).document
    card = read_card(folder)
    row: Row = {"model": card.model, "steps": card.training.steps, "minutes": round(card.training.minutes, 1)}
    row |= {"train_images": card.training.images, "images": found["images"]}
    row |= {"objects": sum(entry["objects"] for entry in found["classes"])}
    for key in SCORES:
        row[key] = round(found[key]["value"], 4)
        row |= {f"{key} {end}": round(found[key][end], 4) for end in ("low", "high") if end in found[key]}
    row |= {f"AP@0.5 {entry['name']}": round(entry["AP@0.5 (area)"]["value"], 4) for entry in found["classes"]}
    print(row)  # noqa: T201 - a script's result
    return row


SCORES = ("mAP@0.5 (area)", "mAP@0.5 (VOC07)", "mAP@0.5:0.95 (area)")


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Attention in the third stage.

SIDES = (512, 768, 1024)
COSTS: dict[str, Row] = {
    "global": {},
    "windows of 512 px": {"s3_attention": "windows", "s3_window_px": 512},
    "windows of 256 px": {"s3_attention": "windows", "s3_window_px": 256},
    "meta": {"s3_attention": "meta"},
}
LARGE_SCENES, LARGE_PX = 6, 1024


def measure_attention() -> None:
    """What a tile costs by its side: the backbone as counted and as it runs folded, and the whole detector."""
    rows: list[Row] = []
    for side in SIDES:
        image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        models = {name: create("lemevit_tiny_orcnn", bands=3, classes=15, **sizes) for name, sizes in COSTS.items()}
        lean = {name: model.backbone.eval().fold() for name, model in models.items()}
        calls = {name: partial(_watched, body, image) for name, body in lean.items()}
        timed = time_interleaved(calls, config=TimingConfig(rounds=5, seconds=0.1, warm_up=1), order=random.Random(0))
        for name, model in models.items():
            body, whole = count_macs_at(model.backbone, image.shape), count_macs_at(model.counted(), image.shape)
            folded = count_macs_at(lean[name], image.shape)
            processor = spread(timed.timings[name].processor_s)
            rows.append(
                {
                    "s3_attention": name,
                    "side_px": side,
                    "backbone_parameters": parameters(model.backbone),
                    "backbone_macs_layers": body.layers,
                    "backbone_macs_attention": body.attention,
                    "backbone_macs_run": folded.total,
                    "detector_macs": whole.total,
                    "backbone_processor_s": round(processor.median, 3),
                    "backbone_processor_s_low": round(processor.low, 3),
                    "backbone_processor_s_high": round(processor.high, 3),
                    "backbone_peak_mb": round((peak_memory(calls[name], device=torch.device("cpu")) or 0) / 1e6, 1),
                    "threads": torch.get_num_threads(),
                    "torch": torch.__version__,
                }
            )
            print(rows[-1])  # noqa: T201 - a script's result
    write_table(rows, RESULTS / "detection_attention_cost.csv", columns=rows[0])


@torch.inference_mode()
def _watched(body: nn.Module, image: Tensor) -> object:
    return body(image)


def measure_larger(runs: Path) -> None:
    """A detector trained on 256 px over scenes of 1024 px, in windows of other sides and with other reach in S3."""
    data, source = runs / "larger", load(runs / "generated_global")
    if not data.is_dir():
        generate_objects(data, count=LARGE_SCENES, seed=9, config=ObjectScenesConfig(size_px=LARGE_PX, clutter=60))
    found = find_objects(data, ObjectsConfig(classes=source.card.classes.names))
    rows: list[Row] = []
    for tile, overlap in ((CROP_PX, 64), (LARGE_PX, 0)):
        for name, sizes in COSTS.items():
            # Windows are no smaller than small tiles, and reading through meta tokens needs weights that this run has not.
            if name == "meta" or (tile < LARGE_PX and sizes):
                continue
            scores, seconds = _scored(_with(source, sizes, tile=tile, overlap=overlap), found)
            rows.append({"s3_attention": name, "tile_px": tile, "scenes": LARGE_SCENES, "scene_px": LARGE_PX})
            rows[-1] |= {"mAP@0.5 (area)": round(scores.map50_area, 4), "mAP@0.5:0.95 (area)": round(scores.map50_95_area, 4)}
            rows[-1] |= {"objects": sum(scores.support), "processor_s_a_scene": round(seconds / LARGE_SCENES, 2)}
            print(rows[-1])  # noqa: T201 - a script's result
    write_table(rows, RESULTS / "detection_attention_larger.csv", columns=rows[0])


def _with(source: Predictor, sizes: Row, *, tile: int, overlap: int) -> Predictor:
    """The same weights with another reach in S3, on tiles of another side."""
    card = replace(source.card, sizes={**source.card.sizes, **sizes}, tile_px=tile, overlap_px=overlap)
    model = create(card.model, bands=len(card.bands), classes=len(card.classes), **card.sizes)
    model.load_state_dict(source.model.state_dict())
    return Predictor(model.eval(), card, device=torch.device("cpu"), precision="fp32")


def _scored(predictor: Predictor, found: Pictures) -> tuple[DetectionScores, float]:
    """Scores on all images, and processor seconds."""
    began, answers = time.process_time(), []
    for picture in found.pictures:
        with open_scene(picture.record.image) as scene:
            merged = search_scene(predictor, scene, config=BoxesConfig())
        answers.append(detections_of(merged, image=picture.record.image))
    seconds = time.process_time() - began
    truth = [picture.record for picture in found.pictures]
    return score(outcomes(answers, truth, classes=len(found.classes))), seconds


# Figures.

COLOURS = ("#ffd400", "#00e5ff", "#ff4fd8", "#7dff5a", "#ff8c1a")
SURE, TIMES, GAP_PX = 0.3, 2, 8  # score of what is drawn; enlarged so many times; between two pictures


def draw(runs: Path, name: str, data: Path, out: Path, *, most: int) -> None:
    """Images of a run with what is labelled on the left and what the GeoPackage of a map holds on the right."""
    found, predictor = find_objects(data, ObjectsConfig()), load(runs / name)
    rows = []
    for picture in found.pictures[:most]:
        path = Path(picture.record.image)
        result = find_boxes(predictor, as_source(path), out=runs / f"{name}_maps", config=BoxesConfig(overwrite=True))
        with rasterio.open(path) as file:
            image = np.moveaxis(file.read(), 0, -1)
        labelled = (picture.record.polygons.reshape(-1, 4, 2), picture.record.labels)
        rows.append(np.concatenate([_drawn(image, *labelled), _drawn(image, *_read_boxes(Path(result.path), path))], axis=1))
    sheet = Image.fromarray(np.concatenate(rows)).quantize(96, dither=Image.Dither.NONE)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")  # noqa: T201 - a script's result


def _read_boxes(path: Path, image: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Corners (n, 4, 2) in px of the image and classes (n,) of what a GeoPackage is sure of, by its geometry alone."""
    meta, _, geometry, values = pyogrio.raw.read(path)
    columns = dict(zip(meta["fields"], values, strict=True))
    with rasterio.open(image) as file:
        to_px = ~file.transform
    sure = columns["score"] >= SURE
    corners_there = np.array([np.array(one.exterior.coords[:4]) for one in shapely.from_wkb(geometry[sure])]).reshape(-1, 4, 2)
    x, y = to_px * (corners_there[..., 0], corners_there[..., 1])
    return np.stack([x, y], axis=-1), columns["value"][sure].astype(np.int64)


def _drawn(image: NDArray[np.uint8], polygons: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """An image enlarged, outlines over it, with a white margin."""
    large = Image.fromarray(image).resize((image.shape[1] * TIMES, image.shape[0] * TIMES), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(large)
    for corners_px, label in zip(polygons, labels, strict=True):
        ends = [(TIMES * x, TIMES * y) for x, y in corners_px.tolist()]
        pen.line([*ends, ends[0]], fill=COLOURS[label % len(COLOURS)], width=2)
    return np.pad(np.asarray(large), ((0, GAP_PX), (0, GAP_PX), (0, 0)), constant_values=255)


def main() -> None:
    """Parse and call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("iou", "nms", "mosaic", "overfit", "generated", "attention", "larger", "figures"))
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("--data", type=Path, help="with `overfit`: DOTA's images/ and labelTxt/")
    parser.add_argument("--way", choices=tuple(WAYS), default="global", help="with `generated`: attention in S3")
    parser.add_argument("--figures", type=Path, default=Path("docs/images"), help="with `figures`: folder for them")
    given = parser.parse_args()
    if given.what in ("mosaic", "overfit", "generated", "larger", "figures") and given.runs is None:
        parser.error("RUNS is missing: the folder in which data, runs and maps lie")
    if given.what == "overfit" and given.data is None:
        parser.error("--data DOTA is missing: a folder with images/ and labelTxt/")
    ways: dict[str, Callable[[], None]] = {
        "iou": measure_iou,
        "nms": measure_nms,
        "mosaic": lambda: measure_mosaic(given.runs),
        "overfit": lambda: overfit(given.runs, given.data),
        "generated": lambda: generated(given.runs, given.way),
        "attention": measure_attention,
        "larger": lambda: measure_larger(given.runs),
        "figures": lambda: figures(given.runs, given.figures),
    }
    ways[given.what]()


def figures(runs: Path, out: Path) -> None:
    """Crops of DOTA learned by heart, and generated scenes never seen."""
    draw(runs, "overfit", runs / "crops" / "val", out / "objects_dota.png", most=2)
    draw(runs, "generated_global", runs / "scenes" / "test", out / "objects_generated.png", most=3)


if __name__ == "__main__":
    main()

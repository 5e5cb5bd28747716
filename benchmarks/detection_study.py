"""Oriented boxes: what a small detector learns, and how attention in the third stage should reach.

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
import json
import random
import shutil
import time
from collections.abc import Callable
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
from torch import Tensor, nn

from terralean import recipes
from terralean.benchmark.files import read_table, write_table
from terralean.cost.macs import count_macs_at, parameters
from terralean.cost.memory import peak_memory
from terralean.cost.timing import TimingConfig, spread, time_interleaved
from terralean.data.generated_objects import ObjectScenesConfig, generate_objects
from terralean.data.oriented.dota import write_labels
from terralean.data.oriented.layouts import ObjectsConfig, Picture, Pictures, find_objects
from terralean.data.oriented.tiles import Tile, TilesConfig, plan_tiles, tile_name
from terralean.evaluate.run import run_evaluation
from terralean.mapping.boxes_run import BoxesConfig, detections_of, find_boxes, search_scene
from terralean.mapping.scenes import as_source
from terralean.models import create
from terralean.predict import Predictor, load
from terralean.raster.scene import describe, open_scene
from terralean.raster.write import write_scene
from terralean.tasks.detection_scores import DetectionScores, outcomes, score
from terralean.train.run import run
from terralean.weights.card import read_card

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
RECIPE = "detection_orcnn_lemevit_tiny"

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
    rows = [row for row in read_table(path) if row["s3_attention"] != way]
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


def figures(runs: Path, out: Path) -> None:
    """Crops of DOTA learned by heart, and generated scenes never seen."""
    draw(runs, "overfit", runs / "crops" / "val", out / "objects_dota.png", most=2)
    draw(runs, "generated_global", runs / "scenes" / "test", out / "objects_generated.png", most=2)


def main() -> None:
    """Parse and call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overfit", "generated", "attention", "larger", "figures"))
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("--data", type=Path, help="with `overfit`: DOTA's images/ and labelTxt/")
    parser.add_argument("--way", choices=tuple(WAYS), default="global", help="with `generated`: attention in S3")
    parser.add_argument("--figures", type=Path, default=Path("docs/images"), help="with `figures`: folder for them")
    given = parser.parse_args()
    if given.what in ("overfit", "generated", "larger", "figures") and given.runs is None:
        parser.error("RUNS is missing: the folder in which data, runs and maps lie")
    if given.what == "overfit" and given.data is None:
        parser.error("--data DOTA is missing: a folder with images/ and labelTxt/")
    ways: dict[str, Callable[[], None]] = {
        "overfit": lambda: overfit(given.runs, given.data),
        "generated": lambda: generated(given.runs, given.way),
        "attention": measure_attention,
        "larger": lambda: measure_larger(given.runs),
        "figures": lambda: figures(given.runs, given.figures),
    }
    ways[given.what]()


if __name__ == "__main__":
    main()

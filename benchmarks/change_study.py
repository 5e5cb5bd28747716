"""Change detection shown: real crops over-fitted, generated pairs with known change beside rivals, a georeferenced pair mapped.

OMP_NUM_THREADS=1 python benchmarks/change_study.py overfit CD RUNS        LEVIR-CD and DSIFN crops, and the pairs left out
OMP_NUM_THREADS=1 python benchmarks/change_study.py speed PAIRS            processor seconds a step of each network
OMP_NUM_THREADS=1 python benchmarks/change_study.py generated PAIRS RUNS   whatever is missing; a killed run goes on
python benchmarks/change_study.py score PAIRS RUNS                         looks at the test pairs
OMP_NUM_THREADS=1 python benchmarks/change_study.py landsat CD RUNS        the Landsat pair of Taizhou: map, polygons, scores

CD is the folder that holds levir_cd_samples, dsifn_samples and landsat_taizhou; generated pairs are drawn into PAIRS. Each
network has the same processor time on them, as steps times seconds a step in one thread, so that what else the machine does
changes nothing. `--method NAME` and `--seed N` pick a part. Tables go to benchmarks/results, pictures to docs/images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from terralean import recipes
from terralean.benchmark.files import read_table, write_table
from terralean.data.generated_pairs import generate_pairs
from terralean.evaluate.run import run_evaluation
from terralean.mapping.run import MapConfig, MapResult, map_scene
from terralean.predict import load
from terralean.raster.display import stretch
from terralean.raster.scene import open_scene
from terralean.raster.write import write_scene
from terralean.spec import Bands
from terralean.train.run import run

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parents[1] / "docs" / "images"
SEEDS = (0, 1)
NETWORKS = ("change_bit_lemevit_tiny", "change_difference_light", "change_concatenation_light", "change_bit_swin_tiny")
VECTOR = "change_vector"
SCORES = ("f1", "precision", "recall", "iou", "f1_mean_of_images", "f1_mean_of_classes")
CHANGED = 255  # in a mask

Triple = tuple[Path, Path, Path]  # before, after, mask
Picture = NDArray[np.uint8]  # (H, W, 3)
TILES = ("tiling.tile_px=128", "tiling.overlap_px=32")  # networks map windows of the size that they learned on

# Real crops: each half of a set is over-fitted once and left out once. Of LEVIR-CD the halves are those of its publisher.
REAL = {
    "levir": ("levir_cd_samples", (("test_2_", "test_7_", "test_77"), ("train_36", "train_386", "train_412"))),
    "dsifn": ("dsifn_samples", (("0_2", "3_4", "6_3"), ("2_4", "4_4", "8_3"))),
}
HALVES = 2
OVERFIT = (
    *("data.split.validation=0", "data.tile_px=128", "data.augment.zoom=[1, 1]", "data.augment.brightness=0"),
    *("data.augment.contrast=0", "data.augment.flips=false", "data.augment.rotate90=false", "model.sizes.drop_path=0"),
    *("train.batch=2", "train.lr=0.001", "train.precision=bf16", "train.ema_decay=null", *TILES),
    *("train.steps=600", "train.validate_every=100", "train.warmup_steps=30", "pairs.swap=false"),
)

# Generated pairs: folder, seed and number of each part, as the generator draws them by default.
PARTS = (("train", 1, 200), ("val", 2, 24), ("test", 3, 40))
MINUTES = 6  # of one core, for each network and seed
GENERATED = (
    *("data.tile_px=128", "data.rare_share=0.5", "model.sizes.drop_path=0"),
    *("train.batch=4", "train.lr=0.001", "train.precision=bf16", *TILES),
)
WARM_STEPS, TIMED_STEPS, ROUNDS = 3, 6, 2
VALIDATIONS = 4

# The Landsat pair: some pixels are labelled changed or unchanged, the others not at all.
LANDSAT = (
    *("data.split.rule=blocks", "data.split.block_px=100", "data.split.gap_px=16", "data.split.validation=0"),
    *("data.split.test=0.4", "data.tile_px=128", *TILES),
)
LANDSAT_NETWORK = (
    *("data.augment.zoom=[1, 1]", "model.sizes.drop_path=0", "train.batch=4", "train.lr=0.001", "train.precision=bf16"),
    *("train.steps=80", "train.validate_every=40", "train.warmup_steps=10", "train.ema_decay=null"),
)
UNKNOWN = 128

SHOWN, SHOWN_PX, TITLE_PX, GAP_PX = 3, 200, 16, 4
FOUND, FALSE, MISSED, UNLABELLED = (255, 255, 255), (213, 94, 0), (86, 180, 233), (70, 70, 70)


# Real crops.


def overfit(data: Path, runs: Path) -> None:
    """Train on half of each set, score on it and on the other half."""
    rows: list[dict[str, object]] = []
    shown: list[tuple[str, list[Picture]]] = []
    for number in range(HALVES):
        for name, (folder, halves) in REAL.items():
            place, own = runs / "overfit" / name / f"half{number}", halves[number]
            pairs = _halved(data / folder, own, place / "data")
            run(recipes.read("change_bit_lemevit_tiny", changes=OVERFIT), data=place / "data", out=place / "run")
            for part in ("train", "test"):
                rows.append(_scored_half(name, number, part, place, pairs[part]))
                print(rows[-1])  # noqa: T201 - a script's result
            if number == 0:
                for part, told in (("train", "trained on"), ("test", "left out")):
                    pair = pairs[part][0]
                    found = _mapped(place / "run", pair, place / "maps")
                    shown.append((f"{name}, {told}", [*_dates(pair), _compared(found, pair)]))
            write_table(rows, RESULTS / "change_overfit.csv", columns=rows[0])
            _draw(shown, ("before", "after", "reference", "BIT-LeMeViT-tiny"), PICTURES / "change_real.png")


def _halved(folder: Path, own: Sequence[str], place: Path) -> dict[str, list[Triple]]:
    """An index of all pairs, split, and one of each part alone."""
    pairs: dict[str, list[Triple]] = {"train": [], "test": []}
    for before in sorted((folder / "A").iterdir()):
        part = "train" if before.name.startswith(tuple(own)) else "test"
        pairs[part].append((before, folder / "B" / before.name, folder / "label" / before.name))
    _write_index(place / "index.csv", pairs)
    for part, found in pairs.items():
        _write_index(place / part / "index.csv", {part: found})
    return pairs


def _write_index(path: Path, pairs: dict[str, list[Triple]]) -> None:
    names = ("before", "after", "label")
    rows = [
        dict(zip(names, map(str, map(Path.absolute, triple)), strict=True)) | {"split": part}
        for part, found in pairs.items()
        for triple in found
    ]
    write_table(rows, path, columns=(*names, "split"))


def _scored_half(name: str, number: int, part: str, place: Path, pairs: Sequence[Triple]) -> dict[str, object]:
    out = place / f"scored_{part}"
    if not (out / "evaluation.json").is_file():
        run_evaluation(place / "run", read=recipes.read_run, data=place / "data" / part, out=out)
    card = json.loads((place / "run" / "card.json").read_text())
    found = json.loads((out / "evaluation.json").read_text())["change"]
    told = {"data": name, "half": number, "pairs": len(pairs), "scored_on": "trained on" if part == "train" else "left out"}
    return told | {"steps": card["training"]["steps"]} | {key: round(found[key], 4) for key in SCORES}


# Generated pairs.


def draw_parts(pairs: Path) -> None:
    """Those that are not there yet."""
    for part, seed, count in PARTS:
        if not (pairs / part / "drawn").is_file():
            generate_pairs(pairs / part, count=count, seed=seed)
            (pairs / part / "drawn").touch()


def measure_speed(pairs: Path, methods: Sequence[str]) -> None:
    """Processor seconds a step, all networks in turn, several rounds; the median gives the steps of the time."""
    draw_parts(pairs)
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(ROUNDS):
        for method in methods:
            seconds[method] += _step_seconds(pairs, method)
    path = RESULTS / "change_generated_steps.csv"
    rows: list[dict[str, object]] = [row for row in read_table(path) if row["method"] not in methods]
    for method, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        rows.append(
            {
                "method": method,
                "cpu_seconds_a_step": round(median, 3),
                "low": round(low, 3),
                "high": round(high, 3),
                "steps": VALIDATIONS * int(60 * MINUTES / median / VALIDATIONS),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
        print(rows[-1])  # noqa: T201 - a script's result
    write_table(rows, path, columns=rows[0])


def _step_seconds(pairs: Path, method: str) -> list[float]:
    times: list[float] = []
    steps = WARM_STEPS + TIMED_STEPS
    short = (f"train.steps={steps}", f"train.validate_every={steps}", "train.warmup_steps=1", "data.split.validation=0")
    with tempfile.TemporaryDirectory() as folder:
        first, *others = _triples(pairs / "val")
        _write_index(Path(folder) / "index.csv", {"train": others, "test": [first]})
        run(
            recipes.read(method, changes=(*GENERATED, *short)),
            data=Path(folder),
            out=Path(folder) / "run",
            tell=lambda progress: times.append(time.process_time()),
        )
    return [after - before for before, after in pairwise(times)][WARM_STEPS - 1 :]


def train(pairs: Path, runs: Path, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Seed by seed, so that what is finished can be compared."""
    draw_parts(pairs)
    for seed in seeds:
        for method in methods:
            changes = (f"seed={seed}",) if method == VECTOR else (*GENERATED, f"seed={seed}", *_schedule(method))
            run(recipes.read(method, changes=changes), data=pairs, out=runs / method / f"seed{seed}")


def _schedule(method: str) -> tuple[str, str, str]:
    steps = next(int(row["steps"]) for row in read_table(RESULTS / "change_generated_steps.csv") if row["method"] == method)
    return f"train.steps={steps}", f"train.warmup_steps={steps // 10}", f"train.validate_every={steps // VALIDATIONS}"


def score(pairs: Path, runs: Path, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """The test pairs, all runs in one go, and the paired differences from the first method."""
    rows = [_scored(runs / method / f"seed{seed}", method, seed) for method in methods for seed in seeds]
    write_table(rows, RESULTS / "change_generated.csv", columns=rows[0])
    differences = _differences(runs, methods)
    write_table(differences, RESULTS / "change_generated_differences.csv", columns=differences[0])
    shown: list[tuple[str, list[Picture]]] = []
    for triple in _triples(pairs / "test")[:SHOWN]:
        maps = [_mapped(runs / method / "seed0", triple, runs / "maps" / method) for method in methods]
        shown.append((f"pair {triple[0].stem}", [*_dates(triple), *(_compared(found, triple) for found in maps)]))
    names = [method.removeprefix("change_").replace("_", " ") for method in methods]
    _draw(shown, ("before", "after", "reference", *names), PICTURES / "change_generated.png")


def _scored(folder: Path, method: str, seed: int) -> dict[str, object]:
    if not (folder / "evaluation.json").is_file():
        run_evaluation(folder, read=recipes.read_run)
    found = json.loads((folder / "evaluation.json").read_text())
    card = json.loads((folder / "card.json").read_text())
    interval = next(entry for entry in found["classes"] if entry["name"] == "changed")["F1"]
    row: dict[str, object] = {"method": method, "seed": seed, "steps": card["training"]["steps"]}
    row |= {"parameters": card["cost"]["parameters"], "macs_layers": card["cost"]["macs_layers"]}
    row |= {key: round(found["change"][key], 4) for key in SCORES}
    return row | {"f1_low": round(interval["low"], 4), "f1_high": round(interval["high"], 4)}


def _triples(folder: Path) -> list[Triple]:
    return [(path, folder / "B" / path.name, folder / "label" / path.name) for path in sorted((folder / "A").glob("*.tif"))]


def _differences(runs: Path, methods: Sequence[str]) -> list[dict[str, object]]:
    """IoU of change, the first method's less that of each other, over places and seeds."""
    mine, *others = (runs / method for method in methods)
    document = run_evaluation(mine, read=recipes.read_run, against=others).document
    rows: list[dict[str, object]] = []
    for other in document["against"]:
        iou = next(entry for entry in other["difference"]["classes"] if entry["name"] == "changed")["IoU"]
        ends = {end: None if iou.get(end) is None else round(iou[end], 4) for end in ("low", "high")}
        rows.append({"method": mine.name, "against": Path(other["folder"]).name, "iou_ahead_by": round(iou["value"], 4)} | ends)
    return rows


# The Landsat pair.


def landsat(data: Path, runs: Path) -> None:
    """Change vector analysis, which needs no labels, and a network that learns from some of them, on blocks of the others."""
    place = runs / "landsat"
    pair = _labelled_pair(data / "landsat_taizhou", place / "data")
    rows: list[dict[str, object]] = []
    pictures = _dates(pair)
    for method, changes in ((VECTOR, ()), ("change_difference_light", LANDSAT_NETWORK)):
        folder = place / method
        run(recipes.read(method, changes=(*LANDSAT, *changes)), data=place / "data", out=folder)
        found = run_evaluation(folder, read=recipes.read_run).document
        made = _map(folder, pair, place / "maps" / method, polygons=True)
        told = {"method": method, "scored_px": sum(entry["support_px"] for entry in found["classes"])}
        told["kappa"] = round(found["kappa"]["value"], 4)
        rows.append(told | {key: round(found["change"][key], 4) for key in SCORES} | _reopened(made))
        print(rows[-1])  # noqa: T201 - a script's result
        pictures.append(_compared(_band(Path(made.path)), pair))
    write_table(rows, RESULTS / "change_landsat.csv", columns=rows[0])
    names = ("2000", "2003", "labels", "change vector analysis", "LeMeViT-tiny, differences")
    _draw([("", pictures)], names, PICTURES / "change_landsat.png")


def _labelled_pair(folder: Path, place: Path) -> Triple:
    """Both masks as one: 0 unchanged, 255 changed, and no data where nobody has said."""
    before, after, mask = folder / "2000TM", folder / "2003TM", place / "labelled.tif"
    with open_scene(str(before)) as scene:
        grid = scene.grid
    changed, unchanged = (np.asarray(Image.open(folder / name).convert("L")) > 0 for name in ("change.bmp", "unchanged.bmp"))
    values = np.select([changed, unchanged], [CHANGED, 0], UNKNOWN).astype(np.uint8)
    write_scene(mask, values[None], grid=grid, bands=Bands(names=("change",), dtype="uint8"), nodata=UNKNOWN)
    _write_index(place / "index.csv", {"": [(before, after, mask)]})
    return before, after, mask


def _reopened(made: MapResult) -> dict[str, object]:
    """What the files of the map hold."""
    with rasterio.open(made.path) as map_:
        place = {"crs": map_.crs.to_string(), "left": map_.bounds.left, "top": map_.bounds.top}
    polygons = pyogrio.read_info(made.polygons)
    return {"changed_share": round(made.class_share["changed"], 4), **place, "polygons": polygons["features"]}


# Maps and pictures.


def _map(folder: Path, pair: Triple, out: Path, *, polygons: bool = False) -> MapResult:
    config = MapConfig(workers=1, overwrite=True, polygons="gpkg" if polygons else None)
    return map_scene(load(folder), f"{pair[0]}:{pair[1]}", out=out, config=config)


def _mapped(folder: Path, pair: Triple, out: Path) -> Picture:
    return _band(Path(_map(folder, pair, out).path))


def _band(path: Path) -> NDArray[np.uint8]:
    with open_scene(path) as scene:
        values, _ = scene.read(scene.grid.window)
    return values[0]


def _dates(pair: Triple) -> list[Picture]:
    """Both dates, each with its own stretch, and the reference."""
    pictures = []
    for path in pair[:2]:
        with open_scene(str(path)) as scene:
            values, valid = scene.read(scene.grid.window)
            pictures.append(stretch(values, valid, bands=scene.bands))
    mask = _band(pair[2])
    return [*pictures, np.where((mask == UNKNOWN)[..., None], UNLABELLED, mask[..., None].repeat(3, 2)).astype(np.uint8)]


def _compared(found: NDArray[np.uint8], pair: Triple) -> Picture:
    """White where change was found, orange where it is none, blue where it was missed; without labels as found, in grey."""
    mask = _band(pair[2])
    changed, labelled = mask == CHANGED, mask != UNKNOWN
    colours = np.zeros((*mask.shape, 3), np.uint8)
    colours[(found == 1) & ~labelled] = 2 * np.array(UNLABELLED)
    colours[(found == 1) & labelled & changed] = FOUND
    colours[(found == 1) & labelled & ~changed] = FALSE
    colours[(found == 0) & changed] = MISSED
    return colours


def _draw(rows: Sequence[tuple[str, Sequence[Picture]]], titles: Sequence[str], path: Path) -> None:
    """A grid of pictures with titles above and the rows' names in their first picture's corner."""
    side = SHOWN_PX + GAP_PX
    page = Image.new("RGB", (side * len(titles) - GAP_PX, TITLE_PX + side * len(rows)), "white")
    pen = ImageDraw.Draw(page)
    for i, title in enumerate(titles):
        pen.text((i * side + 2, 2), title, fill="black")
    for j, (name, pictures) in enumerate(rows):
        for i, picture in enumerate(pictures):
            small = Image.fromarray(picture).resize((SHOWN_PX, SHOWN_PX), Image.Resampling.BOX)
            page.paste(small, (i * side, TITLE_PX + j * side))
        pen.text((4, TITLE_PX + j * side + 3), name, fill="white", stroke_width=1, stroke_fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    page.quantize(256).save(path, optimize=True)


def main() -> None:
    """Parse and call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overfit", "speed", "generated", "score", "landsat"))
    parser.add_argument("data", type=Path, help="CD or PAIRS")
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("--method", choices=(*NETWORKS, VECTOR), action="append")
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append")
    given = parser.parse_args()
    methods, seeds = given.method or (*NETWORKS, VECTOR), tuple(given.seed or SEEDS)
    if given.what == "speed":
        measure_speed(given.data, [method for method in methods if method != VECTOR])
    elif given.runs is None:
        parser.error("RUNS is missing: the folder in which the runs lie")
    elif given.what in ("overfit", "landsat"):
        {"overfit": overfit, "landsat": landsat}[given.what](given.data, given.runs)
    else:
        {"generated": train, "score": score}[given.what](given.data, given.runs, methods, seeds)


if __name__ == "__main__":
    main()

"""What the map writer holds, how fast it is, and whether a killed map comes out the same. Untrained LeMeViT-tiny, light head.

python benchmarks/map_writer.py memory        peak memory of rasters 2048 px wide and 4096 to 32768 high, and of a square one
python benchmarks/map_writer.py throughput    windows/s of a whole map beside those of the network alone on ready tiles
python benchmarks/map_writer.py loop          beside a plain loop that adds scores up in one array, at equal overlap
python benchmarks/map_writer.py kills         killed at twenty random moments, gone on, bytes compared; 1, 2 and 4 workers

Each writes `results/map_<name>_<device>.csv` and prints it; status 1 where a map differs or memory is not flat. Keep the
machine quiet meanwhile: 12, 4, 9 and 8 minutes on two cores, estimated. What is compared is measured in turns, each round in
another order; rows give medians and quartiles.

- `peak_bytes`: the most that a process held, which did nothing but map (or loop); `held_before_bytes`: when the model was open;
  `taken_bytes`: the difference; `told_bytes`: what the map writer said beforehand, of small rasters without what the network
  takes; `all_scores_bytes`: what an array of all scores would take; `by_lowest`: peak by that of the lowest raster
- `windows_per_s`: overlap counted; `mpx_per_s`: of finished map, opening, reading, writing and checking the files included;
  `share_of_network`: windows/s by those of the network alone, whichever of its two ways is quicker
- `speed`: times the plain loop at half a window of overlap in the first precision; `same_class_as_loop`: share of pixels with
  its class, at the same overlap and precision; both write the classes only
- `moment_s`: after the model was open; `left`: what the kill left in the folder; `equal`: all files byte for byte
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

import terralean
from terralean.benchmark.files import write_table
from terralean.benchmark.machine import describe
from terralean.cost.memory import peak_since, process_bytes
from terralean.cost.timing import spread
from terralean.mapping.crew import Crew, default_workers, torch_threads
from terralean.mapping.plan import Plan
from terralean.mapping.run import MapConfig, map_scene
from terralean.mapping.stages import Stages
from terralean.models import create
from terralean.predict import Predictor, load
from terralean.raster.grid import Grid
from terralean.spec import Bands, Classes, Normalisation
from terralean.weights.card import Card, Training
from terralean.weights.checkpoint import save_checkpoint

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
BATCH = 4  # windows predicted at once, by the map writer's default as well
BLOCK_PX = 256  # of generated rasters
DETAIL_PX = 16  # side of a square of one colour
ASKED = {"confidence": True, "scores": True, "polygons": "fgb"}  # of maps that are killed
EARLIER = 0.8  # times the moment of a kill that came too late
FLAT = 1.1  # peak memory of the highest raster by that of the lowest, at most
STARTS, SAYS = "starts", "says "  # what a child process prints


# What is mapped.


def untrained(folder: Path, given: argparse.Namespace) -> Path:
    """A checkpoint with random weights."""
    torch.manual_seed(0)
    model = create("lemevit_tiny_light", bands=3, classes=given.classes)
    for parameter in model.head.classify.parameters():
        torch.nn.init.normal_(parameter)  # untouched the head says the same everywhere
    card = Card(
        version=terralean.__version__,
        task="segmentation",
        model="lemevit_tiny_light",
        bands=Bands(names=("red", "green", "blue")),
        normalisation=Normalisation(mean=(127.5,) * 3, std=(70.0,) * 3),
        classes=Classes.named([f"class {i}" for i in range(given.classes)]),
        tile_px=given.tile,
        overlap_px=given.tile // 4,
        training=Training(data="none", images=0, split="none", leakage="none", steps=0, minutes=0.0, seed=0),
    )
    save_checkpoint(model, card, folder)
    return folder


def make_scene(path: Path, *, width: int, height: int) -> Path:
    """Three bands of 8 bits, compressed, in tiles; written a row of tiles at a time."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "photometric": "RGB", "compress": "zstd", "zstd_level": 1}
    tiles = {"tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
    with rasterio.open(path, "w", width=width, height=height, **profile, **tiles, **place) as file:
        for row in range(0, height, BLOCK_PX):
            rows = min(BLOCK_PX, height - row)
            coarse = rng.integers(1, 256, (3, -(-rows // DETAIL_PX), -(-width // DETAIL_PX)), dtype=np.uint8)
            values = coarse.repeat(DETAIL_PX, axis=1).repeat(DETAIL_PX, axis=2)[:, :rows, :width]
            file.write(values, window=RasterioWindow(0, row, width, rows))
    return path


# Work that is measured in a process of its own.


def child(order: str) -> None:
    """Do what an order says, and say what it took."""
    told: Row = json.loads(order)
    log = _Heard()
    predictor = load(told["run"], device=told["device"], precision=told["precision"])
    held = process_bytes()
    print(STARTS, flush=True)  # noqa: T201 - to the process that waits
    began = time.perf_counter()
    found = WAYS[told["way"]](predictor, told)
    found |= {"seconds": time.perf_counter() - began, "held_before_bytes": held, "told_bytes": log.memory_bytes()}
    found["peak_bytes"] = peak_since(torch.device("cpu"))
    print(SAYS + json.dumps(found), flush=True)  # noqa: T201 - the same


class _Heard(logging.Handler):
    """What a map says beforehand that it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.said = ""
        logging.getLogger("terralean").addHandler(self)
        logging.getLogger("terralean").setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        self.said += record.getMessage() + "\n"

    def memory_bytes(self) -> int | None:
        """As it was written, rounded up."""
        found = re.search(r"takes about ([\d.]+) (MB|GB) of memory", self.said)
        return None if found is None else round(float(found[1]) * {"MB": 1e6, "GB": 1e9}[found[2]])


def map_it(predictor: Predictor, told: Row) -> Row:
    """The map writer."""
    config = MapConfig(**told["config"])
    result = map_scene(predictor, told["scene"], out=Path(told["out"]), config=config)
    return {"windows": result.windows, "resumed_share": result.resumed_share}


def loop_over(predictor: Predictor, told: Row) -> Row:
    """A plain loop: windows read by rasterio, the same network, scores added up in one array, classes written in the end.

    Windows, weights and batches are those of the map writer, so that both say the same; PyTorch uses all processors.
    """
    config = MapConfig(**told["config"])
    overlap = config.overlap_px if config.overlap_px is not None else predictor.card.overlap_px
    with rasterio.open(told["scene"]) as file, torch_threads(default_workers(torch.device("cpu"))):
        plan = Plan(
            grid=Grid(width=file.width, height=file.height, crs=None), tile_px=predictor.card.tile_px, overlap_px=overlap
        )
        side = plan.tile_px
        scores = np.zeros((len(predictor.card.classes), plan.rows[-1] + side, plan.cols[-1] + side), np.float32)
        windows = [window for row in plan.rows for window in plan.row_of_windows(row)]
        for some in (windows[i : i + BATCH] for i in range(0, len(windows), BATCH)):
            read = [
                file.read(window=RasterioWindow(one.col, one.row, side, side), boundless=True, fill_value=0) for one in some
            ]
            images = torch.from_numpy(np.stack(read).astype(np.float32))
            answers = predictor(images, (images != 0).all(dim=1)).numpy()
            for one, answer in zip(some, answers, strict=True):
                scores[:, one.row : one.row + side, one.col : one.col + side] += answer * plan.weight(one)
        save(scores[:, : file.height, : file.width].argmax(axis=0).astype(np.uint8), like=file, out=Path(told["out"]))
    return {"windows": len(windows), "resumed_share": 0.0}


def save(classes: NDArray[np.uint8], *, like: Any, out: Path) -> None:
    """A GeoTIFF called as the map writer's."""
    out.mkdir(parents=True)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "tiled": True, "compress": "zstd"}
    size = {"width": like.width, "height": like.height}
    with rasterio.open(out / "scene_map.tif", "w", crs=like.crs, transform=like.transform, **size, **profile) as made:
        made.write(classes, 1)


WAYS: dict[str, Callable[[Predictor, Row], Row]] = {"map": map_it, "loop": loop_over}


def start(run: Path, scene: Path, out: Path, given: argparse.Namespace, *, way: str, **config: Any) -> subprocess.Popen[str]:
    """A process that begins to map; it has opened the model when this returns."""
    order = {"way": way, "run": str(run), "scene": str(scene), "out": str(out), "device": given.device}
    order |= {"precision": config.pop("precision", "fp32"), "config": config}
    process = subprocess.Popen([sys.executable, __file__, "child", json.dumps(order)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline().strip() != STARTS:
        process.wait()
        raise SystemExit(f"{way} of {scene} could not begin; see above")
    return process


def finish(process: subprocess.Popen[str]) -> Row:
    """What a process says in the end."""
    said = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"a map ended with status {process.returncode}; see above")
    found: Row = json.loads(next(line for line in said.splitlines() if line.startswith(SAYS))[len(SAYS) :])
    return found


# What is measured.


def memory(given: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Peak memory of ever higher rasters, then of a square one."""
    run, lowest = untrained(folder / "run", given), None
    sizes = [(given.width, height) for height in given.heights] + [(given.square, given.square)] * (given.square > 0)
    for width, height in sizes:
        scene = make_scene(folder / "scene.tif", width=width, height=height)
        found = finish(start(run, scene, folder / "maps", given, way="map", workers=given.workers))
        shutil.rmtree(folder / "maps")
        lowest = lowest or found["peak_bytes"]
        mpx = width * height / 1e6
        row = {"width_px": width, "height_px": height, "windows": found["windows"], "peak_bytes": found["peak_bytes"]}
        row |= {"by_lowest": found["peak_bytes"] / lowest if width == given.width else None, "told_bytes": found["told_bytes"]}
        row |= {
            "held_before_bytes": found["held_before_bytes"],
            "taken_bytes": found["peak_bytes"] - found["held_before_bytes"],
        }
        row |= {"all_scores_bytes": 4 * given.classes * width * height}
        yield row | {"seconds": found["seconds"], "mpx_per_s": mpx / found["seconds"], "workers": given.workers}


def throughput(given: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Whole maps beside the network alone, which has the same batches ready and normalised: by as many workers, and by one."""
    run = untrained(folder / "run", given)
    scene = make_scene(folder / "scene.tif", width=given.side, height=given.side)
    plan = Plan(grid=Grid(width=given.side, height=given.side, crs=None), tile_px=given.tile, overlap_px=given.tile // 4)
    windows, all_cores = len(plan.rows) * len(plan.cols), default_workers(torch.device("cpu"))
    side_by_side, alone = Crew(batch=BATCH, workers=given.workers, threads=1), Crew(batch=BATCH, threads=all_cores)
    for precision in given.precision:
        predictor = load(run, device=given.device, precision=precision)
        tiles = ready_tiles(predictor, windows)
        calls: dict[str, Callable[[], object]] = {
            "map": lambda predictor=predictor: map_once(predictor, scene, folder / "maps", workers=given.workers),
            f"network, {given.workers} x 1 thread": lambda tiles=tiles, network=predictor.network: forward(
                network, tiles, side_by_side
            ),
            f"network, 1 x {all_cores} threads": lambda tiles=tiles, network=predictor.network: forward(network, tiles, alone),
        }
        seconds = in_turns(calls, rounds=given.rounds, say=f"{precision} ")
        best = max(windows / spread(tuple(times)).median for way, times in seconds.items() if way != "map")
        for way, times in seconds.items():
            quick, median, slow = spread(tuple(times))
            row = {"way": way, "precision": precision, "windows": windows, "seconds": median, "windows_per_s": windows / median}
            row |= {"windows_per_s_low": windows / slow, "windows_per_s_high": windows / quick}
            row |= {"share_of_network": windows / median / best, "rounds": given.rounds}
            yield row | {"mpx_per_s": given.side**2 / 1e6 / median if way == "map" else None, "side_px": given.side}


def ready_tiles(predictor: Predictor, windows: int) -> list[torch.Tensor]:
    """So many windows in batches, normalised and on the device; few different ones, since memory is not what is measured."""
    side = predictor.card.tile_px
    images = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (BATCH, 3, side, side)).astype(np.float32))
    with torch.inference_mode():
        seen = predictor.seen(images, torch.ones(BATCH, side, side, dtype=torch.bool))
    return [seen[: min(BATCH, windows - i)] for i in range(0, windows, BATCH)]


def forward(network: torch.nn.Module, tiles: Sequence[torch.Tensor], crew: Crew) -> None:
    """Every batch through the network, by several threads or by one that PyTorch gives all processors."""

    def call(tile: torch.Tensor) -> None:
        with torch.inference_mode():
            network(tile)
        if tile.device.type == "cuda":
            torch.cuda.synchronize(tile.device)

    with torch_threads(crew.threads or 1), Stages() as stages:
        for _ in stages.in_order(call, tiles, workers=crew.workers, at_once=crew.at_once, prepare=crew.prepare):
            pass


def map_once(predictor: Predictor, scene: Path, out: Path, *, workers: int) -> None:
    """From a file to a file."""
    map_scene(predictor, scene, out=out, config=MapConfig(workers=workers, overwrite=True))


def in_turns(calls: dict[str, Callable[[], object]], *, rounds: int, say: str) -> dict[str, list[float]]:
    """Seconds of each call in each round; the first round, not counted, warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order = random.Random(0)
    for round_ in range(rounds + 1):
        for name in order.sample(sorted(calls), len(calls)):
            began = time.perf_counter()
            calls[name]()
            took = time.perf_counter() - began
            progress(f"{say}round {round_} of {rounds}, {name}: {took:.1f} s")
            seconds[name] += [took] if round_ else []
    return seconds


def loop(given: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """The map writer beside a plain loop: at equal overlap, half a window as plain loops have it, and at its default."""
    run = untrained(folder / "run", given)
    scene = make_scene(folder / "scene.tif", width=given.side, height=given.side)
    half, usual = given.tile // 2, given.tile // 4
    ways = [(way, overlap, precision) for precision in given.precision for overlap in (half, usual) for way in ("loop", "map")]
    found: dict[tuple[str, int, str], list[Row]] = {way: [] for way in ways}
    order = random.Random(0)
    for round_ in range(given.rounds):
        for name in order.sample(ways, len(ways)):
            way, overlap, precision = name
            out = folder / "_".join(map(str, name))
            shutil.rmtree(out, ignore_errors=True)
            one = finish(start(run, scene, out, given, way=way, precision=precision, overlap_px=overlap))
            progress(f"round {round_ + 1} of {given.rounds}, {way}, overlap {overlap}, {precision}: {one['seconds']:.1f} s")
            found[name].append(one)
    base = spread(tuple(one["seconds"] for one in found["loop", half, given.precision[0]])).median
    for (way, overlap, precision), rows in found.items():
        quick, median, slow = spread(tuple(one["seconds"] for one in rows))
        like = labels(folder / f"loop_{overlap}_{precision}" / "scene_map.tif")
        same = float((labels(folder / f"{way}_{overlap}_{precision}" / "scene_map.tif") == like).mean())
        row = {"way": way, "overlap_px": overlap, "precision": precision, "windows": rows[0]["windows"], "seconds": median}
        row |= {"windows_per_s": rows[0]["windows"] / median, "mpx_per_s": given.side**2 / 1e6 / median}
        row |= {"mpx_per_s_low": given.side**2 / 1e6 / slow, "mpx_per_s_high": given.side**2 / 1e6 / quick}
        row |= {"speed": base / median, "same_class_as_loop": same, "peak_bytes": max(one["peak_bytes"] for one in rows)}
        yield row | {"held_before_bytes": rows[0]["held_before_bytes"], "rounds": given.rounds, "side_px": given.side}


def labels(path: Path) -> NDArray[np.uint8]:
    """(h, w) classes of a map."""
    with rasterio.open(path) as file:
        found: NDArray[np.uint8] = file.read(1)
    return found


def kills(given: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Killed at random moments and gone on; and undisturbed, by other numbers of workers."""
    run = untrained(folder / "run", given)
    scene = make_scene(folder / "scene.tif", width=given.side, height=given.side)
    whole = finish(start(run, scene, folder / "2", given, way="map", workers=2, **ASKED))
    expected, moments = digests(folder / "2"), random.Random(given.seed)
    yield {"what": "undisturbed", "workers": 2, "seconds": whole["seconds"], "files": len(expected), "equal": True}
    for number in range(1, given.kills + 1):
        out = folder / f"killed {number}"
        moment = killed(run, scene, out, given, moment=moments.uniform(0, whole["seconds"]))
        left = sorted(path.name for path in out.rglob("*")) if out.is_dir() else []
        found = finish(start(run, scene, out, given, way="map", workers=2, **ASKED))
        row = {"what": f"killed {number}", "workers": 2, "moment_s": moment, "left": " ".join(left)}
        row |= {"resumed_share": found["resumed_share"], "seconds": found["seconds"], "files": len(expected)}
        yield row | {"equal": digests(out) == expected}
        shutil.rmtree(out)
    for workers in (1, 4):
        found = finish(start(run, scene, folder / str(workers), given, way="map", workers=workers, **ASKED))
        row = {"what": "undisturbed", "workers": workers, "seconds": found["seconds"], "files": len(expected)}
        yield row | {"equal": digests(folder / str(workers)) == expected}


def killed(run: Path, scene: Path, out: Path, given: argparse.Namespace, *, moment: float) -> float:
    """Kill a map so many seconds after its model was open, or earlier where it is done by then; when it was."""
    while True:
        process = start(run, scene, out, given, way="map", workers=2, **ASKED)
        time.sleep(moment)
        process.kill()
        process.communicate()
        if (out / "scene_map.part" / "job.json").exists() or not (out / "scene_map.tif").exists():
            return moment
        shutil.rmtree(out)
        moment *= EARLIER


def digests(folder: Path) -> dict[str, str]:
    """Of all files by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir()) if path.is_file()}


# What is told.


def progress(words: str) -> None:
    """On stderr."""
    print(words, file=sys.stderr, flush=True)  # noqa: T201 - a script's progress


def shown(value: Any, name: str) -> str:
    """A cell of the printed table: bytes in MB, other numbers with four digits."""
    if value is None:
        return "-"
    if name.endswith("_bytes"):
        return f"{value / 1e6:.0f} MB"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """On stdout, in columns."""
    cells = [list(columns), *([shown(row.get(name), name) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))  # noqa: T201 - a script's result


COLUMNS = {
    "memory": "width_px height_px windows peak_bytes by_lowest told_bytes held_before_bytes taken_bytes all_scores_bytes "
    "seconds mpx_per_s workers",
    "throughput": "way precision windows seconds windows_per_s windows_per_s_low windows_per_s_high share_of_network mpx_per_s "
    "side_px rounds",
    "loop": "way overlap_px precision windows seconds windows_per_s mpx_per_s mpx_per_s_low mpx_per_s_high speed "
    "same_class_as_loop peak_bytes held_before_bytes side_px rounds",
    "kills": "what workers moment_s left resumed_share seconds files equal",
}
MEASURES = {"memory": memory, "throughput": throughput, "loop": loop, "kills": kills}
TILES = {"kills": 256}  # px: more strips, among which kills fall; else 512
SIDES = {"throughput": 3000, "loop": 3000, "kills": 2000}  # of the scene, px


def parse() -> argparse.Namespace:
    """Defaults are those of the results that are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="what", required=True)
    for name in MEASURES:
        kind = kinds.add_parser(name)
        kind.add_argument(
            "--tile", type=int, default=TILES.get(name, 512), help="side of a window, px; a quarter of it is shared"
        )
        kind.add_argument("--classes", type=int, default=10)
        kind.add_argument("--device", default="cpu")
        kind.add_argument("--workers", type=int, default=default_workers(torch.device("cpu")))
        kind.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV file")
        kind.add_argument("--work", help="folder for scenes and maps, several GB; default: the system's for temporary files")
        if name in SIDES:
            kind.add_argument("--side", type=int, default=SIDES[name], help="of the scene, px")
    kinds.choices["memory"].add_argument("--width", type=int, default=2048)
    kinds.choices["memory"].add_argument("--heights", type=int, nargs="+", default=[4096, 8192, 16384, 32768])
    kinds.choices["memory"].add_argument("--square", type=int, default=16384, help="0: none")
    for name, rounds in (("throughput", 5), ("loop", 3)):
        kinds.choices[name].add_argument("--rounds", type=int, default=rounds)
        kinds.choices[name].add_argument("--precision", nargs="+", default=["fp32"])
    kinds.choices["kills"].add_argument("--kills", type=int, default=20)
    kinds.choices["kills"].add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2])
        return
    given, rows, began = parse(), [], time.monotonic()
    device = torch.device(given.device)
    machine = describe(device)
    facts = {"model": "lemevit_tiny_light", "classes": given.classes, "tile_px": given.tile, "batch": BATCH}
    facts |= {"device": machine.device, "processors": default_workers(torch.device("cpu"))}
    facts |= {"torch": machine.torch, "gdal": rasterio.__gdal_version__, "terralean": machine.terralean}
    with tempfile.TemporaryDirectory(dir=given.work, prefix="map-writer-") as folder:
        for row in MEASURES[given.what](given, Path(folder)):
            rows.append(row | facts)
            progress(f"{time.monotonic() - began:5.0f} s  " + ", ".join(f"{k} {shown(v, k)}" for k, v in row.items()))
    columns = COLUMNS[given.what].split()
    write_table(rows, given.out / f"map_{given.what}_{device.type}.csv", columns=[*columns, *facts])
    table(rows, columns)
    if not all(row.get("equal", True) and (row.get("by_lowest") or 1) <= FLAT for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()

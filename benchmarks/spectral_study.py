"""Hyperspectral pixels from few labels: the default network beside its rivals, what each part of it does, adapting, and speed.

OMP_NUM_THREADS=1 python benchmarks/spectral_study.py scores DATA RUNS      every method on the same deals
OMP_NUM_THREADS=1 python benchmarks/spectral_study.py ablations DATA RUNS   the default with one part of it changed
OMP_NUM_THREADS=1 python benchmarks/spectral_study.py transfer DATA RUNS    one part of EnMAP Potsdam to another by adapters
python benchmarks/spectral_study.py speed RUNS                              a generated cube mapped; keep the machine quiet
terralean evaluate RUNS/block_5/salinas_a/spectral_lola --against RUNS/block_5/salinas_a/spectral_svm     paired differences

DATA holds the folders indian_pines_subscene, salinas_a and enmap_potsdam. A killed study goes on, finished runs are only read,
and the table of each command in `results/spectral_*.csv` is whole after every run. `--scene`, `--split`, `--method`, `--seed`
and `--setting` pick a part. Runs of one seed have the same pixels whatever is trained on them; beside each stands what position
alone scores. Settings were chosen on other deals (docs/experiments.md). `training_s` is time on the clock; `processor_s` is
that of all threads, reading included, and empty where a run was killed in between.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from terralean import recipes
from terralean.adapt.freezing import learning
from terralean.benchmark.files import read_table, write_table
from terralean.cost.memory import peak_since, process_bytes, restart_peak
from terralean.evaluate.run import run_evaluation
from terralean.mapping.run import MapConfig, map_scene
from terralean.models import create
from terralean.predict import Predictor, load
from terralean.raster.envi_write import CubeFormat, write_cube
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene
from terralean.spec import Bands
from terralean.train.run import run
from terralean.weights.card import Card, read_card

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
SEEDS = (0, 1, 2, 3, 4)
SCORES = {"OA": "oa", "AA": "aa", "kappa": "kappa"}
POSITION = "position"  # the class of the nearest training pixel, which no run has to be trained for
METHODS = ("spectral_svm", "spectral_svm_context", "spectral_lola", "spectral_ssftt", "spectral_hybridsn")  # cheapest first
FEW = 10  # labels of each class of a part that is adapted to
DENSE_PX, WINDOWS_AT_ONCE = 64, 256
SAYS = "says "  # before what a child process found


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A folder of DATA, and what has to be said of it."""

    folder: str
    changes: tuple[str, ...] = ()


SCENES = {
    "indian_pines_subscene": Scene(folder="indian_pines_subscene"),
    "salinas_a": Scene(folder="salinas_a", changes=("data.cube=SalinasA_corrected.mat",)),
    "enmap_potsdam": Scene(folder="enmap_potsdam/derived_envi"),
}
SPLITS = {
    "block_5": (),
    "random_2": ("data.split.method=random", "data.split.share=0.02"),
}
SETTINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "volume": ("model.sizes.stem=volume",),  # convolutions along the spectrum, too, as published
    "no_spectrum": ("model.sizes.spectrum=false",),
    "no_centre": ("model.sizes.spectrum=false", "model.sizes.centre=false"),
    "no_mixup": ("train.mixup=0",),
    "whitened": ("model.sizes.whitening=1",),
    "fixed_components": ("model.sizes.spectral=pca",),
    "lora": ("model.sizes.adapters=plain",),
    "lora_gate": ("model.sizes.adapters=gated",),
    "lora_published": ("model.sizes.adapters=published",),  # gates and full matrices beside a base that stays random
    "share_2": ("data.split.share=0.02",),
    "share_10": ("data.split.share=0.1",),
}
CYCLE = "adapt.schedule={cycles: 3}"
ADAPTED = {"adapted": (), "adapted_cyclic": (CYCLE,)}
FROM, TO = "west", "east"  # of the tiles of EnMAP Potsdam
FIRST_COLUMN = {FROM: 64, TO: 160}  # of the whole scene, from which tiles belong to a part


def scores(data: Path, runs: Path, given: argparse.Namespace) -> Iterator[Row]:
    """Every method on every scene and split, the cheapest methods first."""
    for method in given.method or METHODS:
        for split in given.split or SPLITS:
            for seed in given.seed or SEEDS:
                for scene in given.scene or SCENES:
                    folder = runs / split / scene / method / f"seed{seed}"
                    _train(method, data / SCENES[scene].folder, folder, _changes(scene, split, seed))
                    place = {"scene": scene, "split": split, "method": method, "seed": seed}
                    yield place | _row(folder)
                    if method == METHODS[0]:
                        yield {**place, "method": POSITION} | _position(folder)


def ablations(data: Path, runs: Path, given: argparse.Namespace) -> Iterator[Row]:
    """The default with one part changed, on the deals of `scores`; then the strength of adapters, constant and in cycles."""
    for seed in given.seed or SEEDS:
        for scene in given.scene or SCENES:
            for setting in given.setting or SETTINGS:
                default = runs / "block_5" / scene / "spectral_lola" / f"seed{seed}"
                folder = default if setting == "default" else runs / "ablations" / scene / setting / f"seed{seed}"
                changes = [*_changes(scene, "block_5", seed), *SETTINGS[setting]]
                _train("spectral_lola", data / SCENES[scene].folder, folder, changes)
                yield {"scene": scene, "setting": setting, "seed": seed} | _row(folder) | _learns(folder)
        if not given.setting:
            yield from (
                {"scene": f"enmap_potsdam {TO}", "setting": row.pop("method")} | row
                for row in _parts(data, runs, seed, methods=tuple(ADAPTED))
            )


def transfer(data: Path, runs: Path, given: argparse.Namespace) -> Iterator[Row]:
    """Few labels of a part: from scratch, all weights of the other part's network further trained, and its adapters alone."""
    for seed in given.seed or SEEDS:
        yield from _parts(data, runs, seed, methods=("scratch", "all_weights", *ADAPTED))


def _parts(data: Path, runs: Path, seed: int, *, methods: Sequence[str]) -> Iterator[Row]:
    folders = {part: _make_part(data, runs, part) for part in FIRST_COLUMN}
    base = runs / "transfer" / FROM / f"seed{seed}"
    _train("spectral_lola", folders[FROM], base, [f"seed={seed}", "data.split.share=0.25"])
    ways = {"scratch": (), "all_weights": (f"model.weights={base}",)}
    ways |= {name: (f"adapt.from={base}", *more) for name, more in ADAPTED.items()}
    for method in methods:
        folder = runs / "transfer" / TO / method / f"seed{seed}"
        _train("spectral_lola", folders[TO], folder, [f"seed={seed}", f"data.split.per_class={FEW}", *ways[method]])
        yield {"method": method, "seed": seed} | _row(folder) | _learns(folder)


def speed(runs: Path, given: argparse.Namespace) -> Iterator[Row]:
    """Maps of generated cubes of several heights, each in a process of its own; then every pixel of a tile in both ways."""
    model = _trained_on_generated(runs / "speed", given)
    for height in given.heights:
        cube = _make_cube(runs / "speed" / f"cube_{height}", height=height, width=given.width, bands=given.bands)
        shutil.rmtree(runs / "speed" / "maps", ignore_errors=True)
        order = {"run": str(model), "cube": str(cube), "out": str(runs / "speed" / "maps"), "workers": given.workers}
        found = _in_a_process(order)
        pixels = height * given.width
        size = {"height_px": height, "width_px": given.width, "bands": given.bands, "pixels": pixels}
        yield {"way": "map"} | size | found | {"pixels_per_s": round(pixels / found["seconds"], 1)}
    yield from _both_ways(load(model, device="cpu"), cube)


def _changes(scene: str, split: str, seed: int) -> list[str]:
    return [*SCENES[scene].changes, *SPLITS[split], f"seed={seed}"]


def _train(recipe: str, data: Path, folder: Path, changes: Sequence[str]) -> None:
    """Train and score what was not yet; processor seconds go beside the run where it was trained in one go."""
    told = folder.with_name(f"{folder.name}.processor_s")
    whole = not folder.exists()
    began = time.process_time()
    result = run(recipes.read(recipe, changes=changes), data=data, out=folder, device="cpu")
    if whole and not result.already_done:
        told.write_text(f"{time.process_time() - began:.1f}\n")
    if not (folder / "evaluation.json").is_file():
        run_evaluation(folder, read=recipes.read_run, device="cpu")


def _row(folder: Path) -> Row:
    """Scores of a run, what its deal gives away, and what it took."""
    found, card = json.loads((folder / "evaluation.json").read_text()), read_card(folder)
    told = folder.with_name(f"{folder.name}.processor_s")
    return {
        **_pixels(found),
        **{name: _percent(found[name]["value"]) for name in SCORES},
        **_deal(found),
        "parameters": card.cost["parameters"],
        "training_s": round(60 * card.training.minutes, 1),
        "processor_s": told.read_text().strip() if told.is_file() else None,
        "pixels_per_s": found["cost"]["pixels_per_s"],
    }


def _position(folder: Path) -> Row:
    found = json.loads((folder / "evaluation.json").read_text())
    floor = {name: _percent(found["position_only"][name]["value"]) for name in SCORES}
    return {**_pixels(found), **floor, **_deal(found)}


def _pixels(found: Row) -> Row:
    return {f"{part}_px": sum(counts[part] for counts in found["pixels"].values()) for part in ("train", "validation", "test")}


def _deal(found: Row) -> Row:
    """Shares of test pixels that see a training pixel, or share some with its window; and what position alone scores."""
    leak = found["leakage"]
    return {
        "leaks": _percent(leak["training_pixel_inside"]),
        "windows_share": _percent(leak["windows_sharing"]),
        "position_OA": _percent(found["position_only"]["OA"]["value"]),
    }


def _learns(folder: Path) -> Row:
    """How many weights learned, and their share."""
    learned, total = _counted(read_card(folder))
    return {"learned": learned, "learned_share": _percent(learned / total)}


def _counted(card: Card) -> tuple[int, int]:
    if card.adapted is not None:
        return card.adapted.learned, card.adapted.of
    with torch.device("meta"):
        found = learning(create(card.model, bands=len(card.bands), classes=len(card.classes), **card.sizes))
    return found.learning, found.total


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _make_part(data: Path, runs: Path, part: str) -> Path:
    """A folder of links to the tiles of a part."""
    first, end = FIRST_COLUMN[part], min((col for col in FIRST_COLUMN.values() if col > FIRST_COLUMN[part]), default=10_000)
    folder = runs / "transfer" / f"{part}_tiles"
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for tile in sorted((data / "enmap_potsdam" / kind).glob("*.tif")):
            link = folder / kind / tile.name
            if first <= int(tile.stem.split("_")[-2]) < end and not link.exists():
                link.symlink_to(tile.resolve())
    return folder


def _make_cube(path: Path, *, height: int, width: int, bands: int) -> Path:
    """A generated cube of squares of one spectrum each, written by strips, as ENVI; the path of its header."""
    if path.with_suffix(".hdr").is_file():
        return path.with_suffix(".hdr")
    nm = tuple(np.linspace(400, 2450, bands).round(2).tolist())
    grid = Grid(width=width, height=height, crs="EPSG:32633", transform=(30.0, 0.0, 3e5, 0.0, -30.0, 5.8e6))
    form = CubeFormat(interleave="bil")
    told = Bands(names=tuple(f"band {i + 1}" for i in range(bands)), wavelength_nm=nm, dtype="int16")
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_cube(path, _strips(height=height, width=width, bands=bands), grid=grid, bands=told, how=form)


def _strips(*, height: int, width: int, bands: int) -> Iterator[NDArray[np.int16]]:
    rng = np.random.default_rng(0)
    spectra = 3000 + 800 * np.sin(np.linspace(0, 9, bands)[None] * rng.uniform(0.5, 2, (6, 1)) + rng.uniform(0, 6, (6, 1)))
    for row in range(0, height, 16):
        rows = min(16, height - row)
        classes = _classes(row, rows=rows, width=width)
        values = spectra[classes].transpose(2, 0, 1) + 60 * rng.standard_normal((bands, rows, width), np.float32)
        yield values.astype(np.int16)


def _classes(row: int, *, rows: int, width: int) -> NDArray[np.int64]:
    """(rows, width): six classes in squares of 16 px."""
    down, right = np.arange(row, row + rows)[:, None] // 16, np.arange(width)[None] // 16
    return (7 * down + 5 * right + down * right) % 6


def _trained_on_generated(folder: Path, given: argparse.Namespace) -> Path:
    """The default network on a small generated cube for a few steps, since speed does not depend on what it has learned."""
    side, data = 96, folder / "data"
    _make_cube(data / "cube", height=side, width=side, bands=given.bands)
    np.save(data / "cube_gt.npy", (1 + _classes(0, rows=side, width=side)).astype(np.uint8))
    changes = ["train.steps=4", "train.validate_every=4", "train.warmup_steps=1"]
    run(recipes.read("spectral_lola", changes=changes), data=data, out=folder / "run", device="cpu")
    return folder / "run"


def _in_a_process(order: Row) -> Row:
    done = subprocess.run(
        [sys.executable, __file__, "child", json.dumps(order)], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    found: Row = json.loads(next(line for line in done.splitlines() if line.startswith(SAYS))[len(SAYS) :])
    return found


def child(order: str) -> None:
    """Map a cube, and say how long it took and what the process held."""
    told: Row = json.loads(order)
    predictor = load(told["run"], device="cpu")
    held, known = process_bytes(), restart_peak(torch.device("cpu"))
    result = map_scene(
        predictor, told["cube"], out=Path(told["out"]), config=MapConfig(workers=told["workers"], confidence=True)
    )
    peak = peak_since(torch.device("cpu")) if known else None
    found = {"seconds": result.seconds, "held_before_bytes": held, "peak_bytes": peak}
    print(SAYS + json.dumps(found), flush=True)  # noqa: T201 - to the process that waits


def _both_ways(predictor: Predictor, cube: Path) -> Iterator[Row]:
    """One tile, sharing the work between neighbours, and with a forward pass for the window around each pixel."""
    side, window = DENSE_PX, predictor.card.cost["macs_at_px"]
    with open_scene(cube) as scene:
        values, valid = scene.read(Window(row=0, col=0, height=side + window - 1, width=side + window - 1))
    image, there = torch.from_numpy(values.astype(np.float32)), torch.from_numpy(valid)
    size = {"height_px": side, "width_px": side, "bands": len(image), "pixels": side * side}
    answers: dict[str, torch.Tensor] = {}
    for way, call in (("dense", _dense), ("windows", _windows)):
        call(predictor, image[:, : window + 4, : window + 4], there[: window + 4, : window + 4], window)
        began = time.perf_counter()
        answers[way] = call(predictor, image, there, window)
        seconds = time.perf_counter() - began
        same = float((answers[way] == answers["dense"]).float().mean())
        yield (
            {"way": way} | size | {"seconds": round(seconds, 3), "pixels_per_s": round(side * side / seconds, 1), "same": same}
        )


def _dense(predictor: Predictor, image: torch.Tensor, valid: torch.Tensor, window: int) -> torch.Tensor:
    """The class of every pixel with a whole window, (h, w)."""
    half = window // 2
    found = predictor.scores(image[None], valid[None])[0].argmax(dim=0)
    return found[half : len(found) - half, half : found.shape[1] - half]


def _windows(predictor: Predictor, image: torch.Tensor, valid: torch.Tensor, window: int) -> torch.Tensor:
    """The same by windows cut out of the image."""
    cut = image.unfold(1, window, 1).unfold(2, window, 1).permute(1, 2, 0, 3, 4)
    there = valid.unfold(0, window, 1).unfold(1, window, 1)
    places = torch.cartesian_prod(torch.arange(cut.shape[0]), torch.arange(cut.shape[1])).split(WINDOWS_AT_ONCE)
    parts = [predictor.view_scores(cut[tuple(one.T)], there[tuple(one.T)]).argmax(dim=1) for one in places]
    return torch.cat(parts).view(cut.shape[:2])


def keep(rows: Iterable[Row], path: Path) -> None:
    """Write the table anew after every row; rows of earlier calls that are not made again stay."""
    found = {_key(row): row for row in read_table(path)}
    for row in rows:
        print(row, flush=True)  # noqa: T201 - a script's result
        found[_key(row)] = row
        columns = list(dict.fromkeys(name for one in found.values() for name in one))
        write_table(found.values(), path, columns=columns)


def _key(row: Row) -> tuple[str, ...]:
    """What no two rows of a table share."""
    return tuple(str(row.get(name, "")) for name in ("scene", "split", "method", "setting", "way", "height_px", "seed"))


def main() -> None:
    """Parse and call."""
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    for name in ("scores", "ablations", "transfer"):
        command = commands.add_parser(name)
        command.add_argument("data", type=Path)
        command.add_argument("runs", type=Path)
        command.add_argument("--seed", type=int, choices=SEEDS, action="append")
        if name != "transfer":
            command.add_argument("--scene", choices=SCENES, action="append")
        if name == "scores":
            command.add_argument("--split", choices=SPLITS, action="append")
            command.add_argument("--method", choices=METHODS, action="append")
        if name == "ablations":
            command.add_argument("--setting", choices=SETTINGS, action="append")
    command = commands.add_parser("speed")
    command.add_argument("runs", type=Path)
    command.add_argument("--heights", type=int, nargs="+", default=(250, 1000))
    command.add_argument("--width", type=int, default=1000)
    command.add_argument("--bands", type=int, default=200)
    command.add_argument("--workers", type=int, help="batches predicted side by side; default: one for each processor")
    given = parser.parse_args()
    if given.what == "speed":
        keep(speed(given.runs, given), RESULTS / "spectral_speed_cpu.csv")
        return
    work = {"scores": scores, "ablations": ablations, "transfer": transfer}[given.what]
    keep(work(given.data, given.runs, given), RESULTS / f"spectral_{given.what}.csv")


if __name__ == "__main__":
    main()

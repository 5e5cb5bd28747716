"""The whole journey on generated scenes: make them, train, map one that was never seen, evaluate, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from terralean import recipes
from terralean.data.generated import generate
from terralean.errors import OutputFailed
from terralean.evaluate.run import run_evaluation
from terralean.mapping.run import MapConfig, map_scene
from terralean.predict import load
from terralean.train.callbacks import Progress
from terralean.train.run import run

log = logging.getLogger(__name__)

# Seeds of the scenes by split: other landscapes, other seasons, another sun. (side in px, seeds)
SCENES = {"train": (768, (1, 2, 3, 4)), "validation": (384, (5,)), "test": (1024, (6,))}


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """What the journey gave."""

    miou: float  # on the unseen scene
    oa: float
    forest_miou: float  # a random forest on single pixels, same scenes
    map: str
    report: str
    minutes: float


def run_demo(out: Path, *, tell: Callable[[Progress], None] = lambda progress: None) -> DemoResult:
    """Run the journey in a folder; what is done there already is kept, so a killed demo goes on."""
    began = time.monotonic()
    if out.exists() and not out.is_dir():
        raise OutputFailed(f"{out} is a file; name a folder with --out")
    scenes = make_scenes(out / "data")
    trained = run(recipes.read("demo"), data=out / "data", out=out / "run", tell=tell)
    log.info("trained %d steps in %.1f min", trained.steps, trained.minutes)
    mapped = map_scene(load(out / "run"), scenes["test"][0], out=out / "maps", config=MapConfig(overwrite=True))
    log.info("mapped %s km2 in %.1f s: %s", mapped.area_km2, mapped.seconds, mapped.path)
    found = run_evaluation(out / "run", read=recipes.read_run)
    forest = found.document["baselines"]["Random forest, single pixels"]
    return DemoResult(
        miou=found.document["mIoU"]["value"],
        oa=found.document["OA"]["value"],
        forest_miou=forest["mIoU"],
        map=mapped.path,
        report=found.report,
        minutes=round((time.monotonic() - began) / 60, 2),
    )


def make_scenes(folder: Path) -> dict[str, list[Path]]:
    """Generate the demo's scenes with an index.csv that says which split each is in; the paths of the images by split."""
    rows, scenes = ["path,label,split"], {}
    for split, (size_px, seeds) in SCENES.items():
        names = [f"{split}_{seed}" for seed in seeds]
        scenes[split] = [folder / name / "image.tif" for name in names]
        rows += [f"{name}/image.tif,{name}/labels.gpkg,{split}" for name in names]
        if (folder / "index.csv").is_file():
            continue
        for name, seed in zip(names, seeds, strict=True):
            generate(folder / name, seed=seed, size_px=size_px)
            (folder / "classes.csv").write_bytes((folder / name / "classes.csv").read_bytes())
    (folder / "index.csv").write_text("\n".join(rows) + "\n")  # last: with it the folder is complete
    return scenes

"""Maps a scene, is killed at a point of its work on the disk, goes on, and says what came of it; point after point.

python crash.py RUN SCENE OUT [POINT...]

A point is a moment right before or after a file becomes safe, named or removed, or one at which half of a file is there:
"before fsync classes 2" (the second time), "within scene_map.tif". Without points, all that there are. A line for each: the
point, the share of rows that was kept, and whether the files are in the end those of a run that nobody disturbed.
"""

import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from terralean.mapping.run import MapConfig, map_scene
from terralean.predict import load
from terralean.raster import cog

CONFIG = MapConfig(confidence=True, scores=True, polygons="fgb", workers=2)
CALLS = ("fsync", "replace", "rmdir")
copy_raster = cog.copy_raster


class Crash:
    """Kills this process at a point, or writes down all of them."""

    def __init__(self, point: str | None) -> None:
        self.point, self.passed = point, Counter()
        self.all = []

    def install(self) -> None:
        cog.copy_raster = self.copy
        for name in CALLS:
            setattr(os, name, self.around(name, getattr(os, name)))

    def around(self, name: str, call: Callable) -> Callable:
        def crashing(*arguments, **options):
            self.pass_by(f"before {name} {file_of(arguments[0])}")
            call(*arguments, **options)
            self.pass_by(f"after {name} {file_of(arguments[0])}")

        return crashing

    def copy(self, source: Path, path: Path, **options) -> None:
        copy_raster(source, path, **options)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        self.pass_by(f"within {path.name}")
        path.write_bytes(whole)

    def pass_by(self, where: str) -> None:
        self.passed[where] += 1
        self.all.append(f"{where} {self.passed[where]}")
        if self.point in (self.all[-1], where):
            os.kill(os.getpid(), signal.SIGKILL)


def file_of(argument: object) -> str:
    return Path(os.readlink(f"/proc/self/fd/{argument}") if isinstance(argument, int) else argument).name


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in sorted(out.iterdir())}


def in_child(work: Callable[[], object]) -> bool:
    """Whether it was killed."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(run: str, scene: str, out: Path, points: list[str]) -> None:
    predictor = load(run, device="cpu")

    def disturbed(crash: Crash, folder: Path) -> None:
        crash.install()
        map_scene(predictor, scene, out=folder, config=CONFIG)
        (out / "points").write_text("\n".join(crash.all))

    in_child(lambda: disturbed(Crash(None), out / "undisturbed" / "maps"))
    expected = files(out / "undisturbed" / "maps")
    folder = out / "maps"
    for point in points or (out / "points").read_text().splitlines():
        crash = Crash(point)
        killed = in_child(lambda crash=crash: disturbed(crash, folder))
        share = map_scene(predictor, scene, out=folder, config=CONFIG).resumed_share
        came_of_it = "equal" if files(folder) == expected else f"different: {list(files(folder))}"
        print(point, share if killed else "not killed", came_of_it, sep="; ", flush=True)  # noqa: T201 - a script's result
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])

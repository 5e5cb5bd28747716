"""Files that belong together and appear together or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from terralean.errors import OutputFailed
from terralean.raster.cog import failed
from terralean.raster.source import GDAL_ERRORS


@contextmanager
def whole(out: Path, names: Sequence[str], *, overwrite: bool) -> Iterator[Path]:
    """A folder to write files of these names into, which get their place in `out` together when all is well.

    The first name comes last: where it is there, all are. Raises OutputFailed where a file is there already, and where the
    disk does not take them; nothing is then left.
    """
    there = [out / name for name in names if (out / name).exists()]
    if there and not overwrite:
        raise OutputFailed(f"{there[0]} exists; delete it, choose another folder, or say --overwrite")
    new = [folder for folder in (out.absolute(), *out.absolute().parents) if not folder.exists()]  # ours to remove
    folder = out / f"{names[0]}.part"
    try:
        shutil.rmtree(folder, ignore_errors=True)  # a killed run's
        folder.mkdir(parents=True)
        yield folder
        for path in sorted(folder.iterdir(), key=lambda path: (path.name == names[0], path.name)):
            os.replace(path, out / path.name)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # not there, or meanwhile not empty
            for made in new:
                made.rmdir()
        if isinstance(error, (OSError, *GDAL_ERRORS)):
            raise failed(out / names[0], error) from error
        if isinstance(error, OutputFailed):
            raise OutputFailed(str(error).replace(str(folder), str(out))) from error
        raise
    folder.rmdir()

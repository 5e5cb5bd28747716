"""What a map holds at its peak, beside what it was said to, as a line of JSON.

python peak.py FOLDER WIDTH HEIGHT
"""

import json
import logging
import re
import sys
from pathlib import Path

import numpy as np
import rasterio
import torch
from torch import nn

from terralean.cost.memory import peak_since, process_bytes, restart_peak
from terralean.mapping.run import MapConfig, map_scene
from terralean.predict import Predictor
from terralean.spec import Bands, Classes, Normalisation
from terralean.weights.card import Card, Training

CPU = torch.device("cpu")
CLASSES = 10
CONFIG = MapConfig(batch=1, confidence=True, workers=2)


def predictor():
    """Ten classes from a pixel's three values: what a network holds at work is not what is looked at."""
    torch.manual_seed(0)
    card = Card(
        version="0",
        task="segmentation",
        model="pixels",
        bands=Bands(names=("red", "green", "blue")),
        normalisation=Normalisation(mean=(127.5,) * 3, std=(70.0,) * 3),
        classes=Classes.named([f"class {i}" for i in range(CLASSES)]),
        tile_px=128,
        overlap_px=32,
        training=Training(data="none", images=0, split="none", leakage="none", steps=0, minutes=0.0, seed=0),
    )
    return Predictor(nn.Conv2d(3, CLASSES, 1), card, device=CPU, precision="fp32")


def make_scene(path, *, width, height):
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "tiled": True, "blockxsize": 256, "blockysize": 256}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
    with rasterio.open(path, "w", width=width, height=height, photometric="RGB", **profile, **place) as file:
        for row in range(0, height, 256):
            rows = min(256, height - row)
            values = rng.integers(1, 256, (3, rows // 8 + 1, width // 8 + 1), dtype=np.uint8)
            values = values.repeat(8, axis=1).repeat(8, axis=2)[:, :rows, :width]
            file.write(values, window=rasterio.windows.Window(0, row, width, rows))
    return path


def main(folder, width, height):
    model, told = predictor(), []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logging.getLogger("terralean").addHandler(handler)
    logging.getLogger("terralean").setLevel(logging.INFO)
    map_scene(model, make_scene(folder / "warm.tif", width=width, height=500), out=folder, config=CONFIG)
    scene = make_scene(folder / "scene.tif", width=width, height=height)
    told.clear()
    restart_peak(CPU)
    before = process_bytes()
    map_scene(model, scene, out=folder, config=CONFIG)
    number, unit = re.search(r"takes about ([\d.]+) (MB|GB) of memory", " ".join(told)).groups()
    said = float(number) * {"MB": 1e6, "GB": 1e9}[unit]
    print(json.dumps({"height": height, "before": before, "peak": peak_since(CPU), "said": said}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

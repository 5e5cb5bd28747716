"""Folders and file names as publishers deliver them.

ISPRS Potsdam: 2_Ortho_RGB, 3_Ortho_IRRG, 4_Ortho_RGBIR beside 5_Labels_all or 5_Labels_all_noBoundary.
LoveDA (Wang et al. 2021): {Train,Val,Test}/{Urban,Rural}/{images_png,masks_png}; the labels of Test are not to be had.
Five-Billion-Pixels (Tong et al. 2023): Image__8bit_NirRGB, Image_16bit_BGRNir, Annotation__index/SCENE_24label.png,
Annotation__color.
"""

from __future__ import annotations

import re
from pathlib import Path

from terralean.errors import ConfigError

IMAGES_DELIVERED = re.compile(r"\d_Ortho_\w+|Image__?\d+bit_\w+")
LABELS_DELIVERED = re.compile(r"\d_Labels_\w+|Annotation__?\w+")
LOVEDA_SCENES = ("Rural", "Urban")
LOVEDA_IMAGES, LOVEDA_MASKS = "images_png", "masks_png"
INDEX_SUFFIX = "_24label"  # of the labels of Five-Billion-Pixels, after the name of their scene
RGB_IN = {"NirRGB": (2, 3, 4), "BGRNir": (3, 2, 1)}  # positions of red, green and blue, by what a folder's name ends in


def folders_in(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return sorted(child.name for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))


def is_delivery(root: Path) -> bool:
    """Whether a folder holds images and labels in folders called as ISPRS or Five-Billion-Pixels do."""
    return all(any(usual.fullmatch(name) for name in folders_in(root)) for usual in (IMAGES_DELIVERED, LABELS_DELIVERED))


def loveda_parts(root: Path) -> list[Path]:
    """The folders SPLIT/SCENE of a LoveDA delivery that hold images; empty where a folder is no such delivery."""
    found = [root / split / scene for split in folders_in(root) for scene in LOVEDA_SCENES]
    return [part for part in found if (part / LOVEDA_IMAGES).is_dir()]


def pairing_name(path: Path) -> str:
    """What an image and its labels share of their names."""
    return path.stem.removesuffix(INDEX_SUFFIX)


def check_band_order(images: Path, bands: tuple[int, ...] | None) -> None:
    """Raise ConfigError where positions are those of red, green and blue in the publisher's other folder."""
    for order, positions in RGB_IN.items():
        others = [theirs for name, theirs in RGB_IN.items() if name != order]
        if images.name.endswith(f"_{order}") and bands in others:
            raise ConfigError(
                f"{images} holds its bands in the order {order}, and data.bands {list(bands)} are red, green and blue in the "
                f"other folder of this delivery; here: --set data.bands={list(positions)}"
            )

"""What the LeMeViT paper prints in its tables 2 to 6, digit by digit, with the names under which models are built here.

Jiang et al., "LeMeViT: Efficient Vision Transformer with Learnable Meta Tokens for Remote Sensing Image Interpretation", IJCAI
2024 (arXiv 2405.09789). Speeds are of one RTX 4090 at batch 256 in fp16; MACs are convolutions and linear layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

OURS = ("lemevit_tiny", "lemevit_small", "lemevit_base")
SWIN_T = "swin_tiny_patch4_window7_224"


class Quantity(NamedTuple):
    """A column of a table."""

    name: str
    unit: str


INFERENCE = Quantity("inference speed", "images/s")
TRAINING = Quantity("training speed", "images/s")
INFERENCE_MEMORY = Quantity("inference memory", "GB")
TRAINING_MEMORY = Quantity("training memory", "GB")
PARAMETERS = Quantity("parameters", "M")
MACS = Quantity("MACs", "G")
TOP1 = Quantity("top-1", "%")
TOP5 = Quantity("top-5", "%")
MEAN_AP = Quantity("mAP", "%")
OVERALL_ACCURACY = Quantity("OA", "%")
MEAN_F1 = Quantity("mF1", "%")
CHANGE_F1 = Quantity("F1 of change", "%")


class Setting(NamedTuple):
    """A data set, with the size at which the paper counts."""

    name: str
    size_px: int
    classes: int

    @property
    def words(self) -> str:
        """For a person."""
        return f"{self.name}, {self.size_px} px, {self.classes} classes"


IMAGENET = Setting("ImageNet-1K", 224, 1000)
MILLION_AID = Setting("MillionAID", 224, 51)
DOTA = Setting("DOTA-v1.0, Oriented R-CNN", 1024, 15)
POTSDAM = Setting("Potsdam, UPerNet", 512, 5)
CDD = Setting("CDD, BIT, two dates", 256, 2)


class Printed(NamedTuple):
    """One number of the paper, as printed."""

    table: int
    row: str  # as the paper calls it
    model: str | None  # as it is built here; None: it is not
    setting: Setting
    quantity: Quantity
    text: str

    @property
    def value(self) -> float:
        """The number."""
        return float(self.text)

    @property
    def decimals(self) -> int:
        """Digits printed behind the point."""
        return len(self.text.partition(".")[2])


# By the paper's name: the name here, then the columns. A dash is a dash there.
TABLE_3_COLUMNS = (INFERENCE, PARAMETERS, MACS, TOP1)
TABLE_3: dict[str, tuple[str | None, str]] = {
    "PVTv2-b1": ("pvt_v2_b1", "4897 14.01 2.03 78.70"),
    "MobileViTv2": ("mobilevitv2_100", "5162 4.90 1.41 78.10"),
    "EfficientFormerv2": ("efficientformerv2_s1", "1617 6.19 0.63 79.00"),
    "LeMeViT-Tiny": ("lemevit_tiny", "5317 8.64 1.78 79.07"),
    "Swin-T": (SWIN_T, "2872 28.29 4.35 81.30"),
    "PVTv2-b2": ("pvt_v2_b2", "2867 25.36 3.88 82.00"),
    "FLatten-Swin-T": (None, "1919 28.50 4.39 82.10"),
    "FLatten-PVT-S": (None, "1864 24.72 3.70 81.70"),
    "PaCa-T": (None, "2157 12.20 3.10 80.63"),
    "BiFormer-T": ("biformer_tiny", "2890 13.14 2.20 81.40"),
    "LeMeViT-Small": ("lemevit_small", "3608 16.40 3.74 81.88"),
    "Swin-S": ("swin_small_patch4_window7_224", "1717 49.61 8.51 83.00"),
    "Swin-B": ("swin_base_patch4_window7_224", "1215 87.77 15.13 83.30"),
    "PVTv2-b4": ("pvt_v2_b4", "1495 62.56 9.79 83.60"),
    "CrossViT-B": ("crossvit_base_240", "1912 105.03 20.10 82.20"),
    "PaCa-B": (None, "927 46.91 9.26 83.96"),
    "BiFormer-B": ("biformer_base", "799 56.80 9.32 84.30"),
    "LeMeViT-Base": ("lemevit_base", "1483 53.10 11.06 84.35"),
}
TABLE_4_COLUMNS = (TRAINING, INFERENCE, TRAINING_MEMORY, INFERENCE_MEMORY, PARAMETERS, MACS, TOP1, TOP5)
TABLE_4: dict[str, tuple[str | None, str]] = {
    "Swin-T": (SWIN_T, "873 2875 6.14 1.87 27.56 4.35 98.42 99.87"),
    "Swin-T, 300 epochs": (SWIN_T, "- - - - - - 98.59 99.88"),
    "ViTAEv2-S": ("vitae_v2_s", "624 1848 8.44 1.70 18.87 5.48 98.97 99.88"),
    "LeMeViT-Tiny": ("lemevit_tiny", "1389 5327 3.91 1.36 8.33 1.78 98.80 99.82"),
    "LeMeViT-Small": ("lemevit_small", "969 3613 5.33 1.69 16.04 3.74 99.00 99.90"),
    "LeMeViT-Base": ("lemevit_base", "409 1484 11.08 1.91 52.61 11.06 99.17 99.88"),
}
TABLE_5_COLUMNS = {
    DOTA: (MEAN_AP, PARAMETERS, MACS),
    POTSDAM: (OVERALL_ACCURACY, MEAN_F1, PARAMETERS, MACS),
    CDD: (CHANGE_F1, PARAMETERS, MACS),
}
TABLE_5: dict[str, tuple[str, dict[Setting, str]]] = {
    "Swin-T": (SWIN_T, {DOTA: "76.50 - 215.68", POTSDAM: "90.78 90.03 - 234.79", CDD: "95.21 - 15.63"}),
    "ViTAEv2-S": ("vitae_v2_s", {DOTA: "77.72 - 234.82", POTSDAM: "91.21 90.64 - 238.28", CDD: "96.81 - 15.94"}),
    "LeMeViT-Tiny": (
        "lemevit_tiny",
        {DOTA: "76.63 25.37 154.12", POTSDAM: "91.03 90.55 37.05 217.88", CDD: "95.56 8.56 5.75"},
    ),
    "LeMeViT-Small": (
        "lemevit_small",
        {DOTA: "77.58 33.15 193.91", POTSDAM: "91.23 90.62 45.59 228.16", CDD: "96.64 16.75 10.71"},
    ),
    "LeMeViT-Base": (
        "lemevit_base",
        {DOTA: "78.00 69.76 335.53", POTSDAM: "91.35 90.85 83.19 263.75", CDD: "97.32 53.34 28.47"},
    ),
}
TABLE_6_COLUMNS = (INFERENCE, MACS, TOP1)
TABLE_6 = {64: "3268 4.39 98.96", 32: "3481 3.95 98.97", 16: "3610 3.74 99.00", 8: "3640 3.63 98.96"}  # by meta tokens
# Section 3.4, by table 2's formulas: GMACs of the first block of S1 with self-attention and with dual cross-attention.
FIRST_BLOCKS = {"lemevit_tiny": ("1.41", "0.16"), "lemevit_small": ("2.24", "0.36"), "lemevit_base": ("2.24", "0.36")}


def table_3() -> Iterator[Printed]:
    """Classifiers on ImageNet-1K."""
    for row, (model, numbers) in TABLE_3.items():
        yield from _printed(3, row, model, IMAGENET, TABLE_3_COLUMNS, numbers)


def table_4() -> Iterator[Printed]:
    """Classifiers on MillionAID, 51 classes of scenes."""
    for row, (model, numbers) in TABLE_4.items():
        yield from _printed(4, row, model, MILLION_AID, TABLE_4_COLUMNS, numbers)


def table_5() -> Iterator[Printed]:
    """Detection, segmentation and change on these backbones."""
    for setting, columns in TABLE_5_COLUMNS.items():
        for row, (model, numbers) in TABLE_5.items():
            yield from _printed(5, row, model, setting, columns, numbers[setting])


def table_6() -> Iterator[Printed]:
    """LeMeViT-small with more and fewer meta tokens."""
    for tokens, numbers in TABLE_6.items():
        yield from _printed(6, f"{tokens} meta tokens", "lemevit_small", MILLION_AID, TABLE_6_COLUMNS, numbers)


def lookup(model: str, quantity: Quantity) -> Printed | None:
    """What tables 3 and 4 print of a model: table 3 first; the first row where there are several."""
    found = (p for table in (table_3(), table_4()) for p in table if p.model == model and p.quantity == quantity)
    return next(found, None)


def accuracies(setting: Setting) -> dict[str, float]:
    """Top-1 in percent of the models that are built here, on ImageNet-1K or MillionAID."""
    printed = (p for table in (table_3(), table_4()) for p in table if p.setting == setting and p.quantity == TOP1)
    found: dict[str, float] = {}
    for one in printed:
        if one.model is not None:
            found.setdefault(one.model, one.value)
    return found


def _printed(
    table: int, row: str, model: str | None, setting: Setting, columns: tuple[Quantity, ...], numbers: str
) -> Iterator[Printed]:
    for quantity, text in zip(columns, numbers.split(), strict=True):
        if text != "-":
            yield Printed(table, row, model, setting, quantity, text)

"""What Jiang et al. 2024 (IJCAI, table 3) publish for ImageNet-1K at 224 px: one RTX 4090, batch 256, fp16, channels-last."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A line of their table, under timm's name of the model."""

    images_per_s: int
    parameters_m: float
    gmacs: float  # convolutions and linear layers
    top1: float  # percent


PUBLISHED = {
    "lemevit_tiny": Published(5317, 8.64, 1.78, 79.07),
    "lemevit_small": Published(3608, 16.40, 3.74, 81.88),
    "lemevit_base": Published(1483, 53.10, 11.06, 84.35),
    "pvt_v2_b1": Published(4897, 14.01, 2.03, 78.70),
    "pvt_v2_b2": Published(2867, 25.36, 3.88, 82.00),
    "pvt_v2_b4": Published(1495, 62.56, 9.79, 83.60),
    "mobilevitv2_100": Published(5162, 4.90, 1.41, 78.10),
    "efficientformerv2_s1": Published(1617, 6.19, 0.63, 79.00),
    "swin_tiny_patch4_window7_224": Published(2872, 28.29, 4.35, 81.30),
    "swin_small_patch4_window7_224": Published(1717, 49.61, 8.51, 83.00),
    "swin_base_patch4_window7_224": Published(1215, 87.77, 15.13, 83.30),
}

"""Oriented R-CNN: rotated boxes by a proposal network and a second look at each proposal, on any backbone with a pyramid.

Source: Xie et al. 2021, "Oriented R-CNN for Object Detection" (ICCV), with the sizes and settings that Jiang et al. 2024
(IJCAI, table 5) train on DOTA: OBBDetection's, in which proposals are read 1.4 times as wide and 1.2 times as high.

The paper counts 25.37, 33.15 and 69.76 M parameters: the authors' backbone carries 0.58, 1.34 and 1.87 M that no map depends
on, and ours does not build them.

Training: `losses`. Inference: `forward`, of which `propose` and `judge` are tensor operations of fixed shapes, to be exported
with `chosen` and `found` outside the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from terralean.boxes.detected import Detected
from terralean.boxes.two_looks import Suppression
from terralean.errors import ConfigError
from terralean.layers.folding import fold_norms
from terralean.models import lemevit
from terralean.models.lemevit import S3_WINDOW_PX, LeMeViTConfig, LeMeViTPyramid, S3Attention, sized_pyramid
from terralean.models.oriented_fpn import FeaturePyramid
from terralean.models.oriented_roi import RoIConfig, RoIHead, detections
from terralean.models.oriented_rpn import Candidates, ProposalConfig, ProposalNetwork, proposals
from terralean.models.pyramid import TimmPyramid, pyramid
from terralean.models.swin import SwinPyramid

STRIDES = (4, 8, 16, 32)
COARSER = 64
COUNTED = 1000  # proposals that published MACs are counted with
WIDTH = 256  # channels of the maps that are searched
RPN, ROI = ProposalConfig(), RoIConfig()

Pyramid = LeMeViTPyramid | SwinPyramid | TimmPyramid


class Proposed(NamedTuple):
    """What the second look begins from."""

    maps: tuple[Tensor, ...]  # (B, C, h, w), finest first
    candidates: Candidates


class OrientedRCNN(nn.Module):
    """(B, bands, H, W) -> what is found in each image."""

    def __init__(
        self, backbone: nn.Module, *, channels: Sequence[int], classes: int, width: int, rpn: ProposalConfig, roi: RoIConfig
    ) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(f"width must be above 0, got {width}")
        self.backbone = backbone
        self.classes = classes
        self.fpn = FeaturePyramid(channels, width=width)
        self.rpn = ProposalNetwork(width, strides=(*STRIDES, COARSER), config=rpn)
        self.roi = RoIHead(width, classes=classes, strides=STRIDES, config=roi)

    def forward(self, image: Tensor) -> list[Detected]:
        """Detections of each image, boxes in its px."""
        proposed = self.propose(image)
        boxes = self.chosen(proposed.candidates)
        number = torch.cat([torch.full((len(some),), i, device=image.device) for i, some in enumerate(boxes)])
        probabilities, meant = self.judge(proposed.maps, torch.cat(boxes), number)
        lengths = [len(some) for some in boxes]
        parts = zip(probabilities.split(lengths), meant.split(lengths), strict=True)
        return [self.found(some, its) for some, its in parts]

    def losses(
        self,
        image: Tensor,
        objects: Sequence[Tensor],
        labels: Sequence[Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The four losses, to be added; objects (m, 5) px and labels (m,) of each image. `generator`, of the CPU, draws."""
        maps = self.fpn(self.backbone(image))
        said = self.rpn(maps)
        score, offset = self.rpn.losses(said, objects, generator=generator)
        with torch.no_grad():
            boxes = proposals(self.rpn.candidates(said), self.rpn.config)
        classes, deltas = self.roi.losses(maps, boxes, objects, labels, generator=generator)
        return {"rpn_score": score, "rpn_offset": offset, "roi_class": classes, "roi_delta": deltas}

    def propose(self, image: Tensor) -> Proposed:
        """Maps and candidates, of shapes that the image's shape fixes."""
        maps = self.fpn(self.backbone(image))
        return Proposed(tuple(maps), self.rpn.candidates(self.rpn(maps)))

    def chosen(self, candidates: Candidates) -> list[Tensor]:
        """The proposals (n, 5) of each image: candidates that no better one suppresses."""
        return proposals(candidates, self.rpn.config)

    def judge(self, maps: Sequence[Tensor], boxes: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals (R, 5) and the image (R,) of each -> probabilities (R, K) of classes, and the boxes (R, 5) meant."""
        logits, deltas = self.roi(maps, boxes, image)
        return self.roi.judged(logits, deltas, boxes)

    def found(self, probabilities: Tensor, boxes: Tensor) -> Detected:
        """Detections of one image: boxes sure enough that no better one of their class suppresses."""
        return detections(probabilities, boxes, self.roi.config)

    @property
    def suppression(self) -> Suppression:
        """What `chosen` and `found` go by."""
        rpn, roi = self.rpn.config, self.roi.config
        return Suppression(hull_iou=rpn.hull_iou, proposals=rpn.most, score=roi.score, iou=roi.iou, detections=roi.most)

    def counted(self) -> FixedWork:
        """The same network with a number of proposals that does not depend on the image."""
        return FixedWork(self)

    def fold(self) -> OrientedRCNN:
        """A copy for inference: the same detections to rounding, faster."""
        folded = fold_norms(self)
        own: Callable[[], nn.Module] | None = getattr(self.backbone, "fold", None)
        folded.backbone = folded.backbone if own is None else own()
        return folded

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones."""
        own: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in own}


class FixedWork(nn.Module):
    """The work of a detector with 1000 proposals an image, none suppressed: what published MACs count."""

    def __init__(self, detector: OrientedRCNN) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, bands, H, W) -> probabilities (B * n, K) and boxes (B * n, 5), n at most 1000."""
        maps, candidates = self.detector.propose(image)
        boxes = candidates.boxes[:, :COUNTED]
        number = torch.arange(len(image), device=image.device)[:, None].expand(boxes.shape[:2])
        return self.detector.judge(maps, boxes.flatten(0, 1), number.flatten())


def orcnn(
    *,
    bands: int,
    classes: int,
    backbone: str,
    drop_path: float = 0.0,
    width: int = WIDTH,
    hidden: int = ROI.hidden,
    proposals: int = RPN.most,
    score: float = ROI.score,
    iou: float = ROI.iou,
) -> OrientedRCNN:
    """Oriented R-CNN on any backbone of timm's that gives maps at reductions of 4, 8, 16 and 32, LeMeViT's included.

    `proposals` of an image get a second look; what is found has a probability of `score` at least, and overlaps a better box
    of its class by an `iou` of no more than that.
    """
    body = pyramid(backbone, bands=bands, drop_path=drop_path)
    if (found := tuple(body.feature_info.reduction())) != STRIDES:
        raise ConfigError(
            f"orcnn reads maps at reductions {', '.join(map(str, STRIDES))}; {backbone} gives {', '.join(map(str, found))}; "
            "use for instance lemevit_tiny or resnet18"
        )
    roi = RoIConfig(hidden=hidden, score=score, iou=iou)
    return _detector(body, classes=classes, width=width, proposals=proposals, roi=roi)


def _detector(body: Pyramid, *, classes: int, width: int, proposals: int, roi: RoIConfig) -> OrientedRCNN:
    channels = body.feature_info.channels()
    rpn = ProposalConfig(of_level=proposals, most=proposals)
    return OrientedRCNN(body, channels=channels, classes=classes, width=width, rpn=rpn, roi=roi)


def _on_lemevit(name: str, size: Callable[..., LeMeViTConfig], told: str) -> Callable[..., OrientedRCNN]:
    def build(
        *,
        bands: int,
        classes: int,
        drop_path: float = 0.0,
        width: int = WIDTH,
        hidden: int = ROI.hidden,
        proposals: int = RPN.most,
        score: float = ROI.score,
        s3_attention: S3Attention = "global",
        s3_window_px: int = S3_WINDOW_PX,
    ) -> OrientedRCNN:
        body = sized_pyramid(size, bands=bands, drop_path=drop_path, s3_attention=s3_attention, s3_window_px=s3_window_px)
        roi = RoIConfig(hidden=hidden, score=score)
        return _detector(body, classes=classes, width=width, proposals=proposals, roi=roi)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = told
    return build


lemevit_tiny_orcnn = _on_lemevit(
    "lemevit_tiny_orcnn", lemevit.tiny, "LeMeViT-tiny with Oriented R-CNN, 24.79 M parameters for DOTA's classes."
)
lemevit_small_orcnn = _on_lemevit(
    "lemevit_small_orcnn", lemevit.small, "LeMeViT-small with Oriented R-CNN, 31.80 M parameters for DOTA's classes."
)
lemevit_base_orcnn = _on_lemevit(
    "lemevit_base_orcnn", lemevit.base, "LeMeViT-base with Oriented R-CNN, 67.89 M parameters for DOTA's classes."
)


def swin_tiny_orcnn(
    *, bands: int, classes: int, drop_path: float = 0.0, proposals: int = RPN.most, score: float = ROI.score
) -> OrientedRCNN:
    """Swin-T (Liu et al. 2021, timm's) with Oriented R-CNN."""
    name = "swin_tiny_patch4_window7_224"
    return orcnn(bands=bands, classes=classes, backbone=name, drop_path=drop_path, proposals=proposals, score=score)

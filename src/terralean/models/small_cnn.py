"""A small convolutional classifier, to know what little it takes: four convolutions, each halving the image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Scene classifier: (B, bands, H, W) -> logits (B, classes); H and W at least 16 px."""

    def __init__(self, *, bands: int, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        before = (bands, *widths[:-1])
        self.body = nn.Sequential(*(_halve(i, o) for i, o in zip(before, widths, strict=True)))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.head(self.body(image).mean(dim=(2, 3)))

    def get_classifier(self) -> nn.Module:
        """The last layer, by timm's name."""
        return self.head


def small_cnn(*, bands: int, classes: int, width: int = 32) -> SmallCNN:
    """Widths of 1, 2, 4 and 8 times `width`: 0.39 M parameters at 32."""
    return SmallCNN(bands=bands, classes=classes, widths=(width, 2 * width, 4 * width, 8 * width))


def _halve(before: int, after: int) -> nn.Sequential:
    convolve = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return nn.Sequential(convolve, nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(2))

"""A classifier of patches asked for every pixel of an image: what neighbouring patches have in common is computed once."""

from __future__ import annotations

from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 64  # of the image that are worked on at once
WINDOWS = 4096  # that are answered at once


class PatchNet(Protocol):
    """A network that says the class of the pixel in the middle of a patch."""

    @property
    def window_px(self) -> int:
        """Side of the patch around a pixel, an odd number."""

    @property
    def margin_px(self) -> int:
        """How much less than its image `shared` covers, on each side."""

    def shared(self, image: Tensor) -> Tensor:
        """(B, bands, H, W) -> (B, C, H - 2 margin, W - 2 margin): of each place what any patch there would compute."""

    def answer(self, windows: Tensor) -> Tensor:
        """Windows (B, C, h, w) of what `shared` gives, of patches of any image -> logits (B, classes)."""


class EveryPixel(nn.Module):
    """(B, bands, H, W) -> logits (B, classes, H, W): of each pixel what the network says of the patch around it.

    Beyond the edges of the image there are zeros, as in patches that are cut there.
    """

    def __init__(self, net: nn.Module, *, rows: int = ROWS, windows: int = WINDOWS) -> None:
        super().__init__()
        self.net = net
        self.rows, self.windows = rows, windows

    def forward(self, image: Tensor) -> Tensor:
        """Logits of every pixel, by strips of rows."""
        side_px = self._patch_net.window_px
        around = F.pad(image, (side_px // 2,) * 4)
        tops = range(0, image.shape[2], self.rows)
        return torch.cat([self._strip(around[:, :, top : top + self.rows + side_px - 1]) for top in tops], dim=2)

    @property
    def _patch_net(self) -> PatchNet:
        return cast("PatchNet", self.net)

    def _strip(self, image: Tensor) -> Tensor:
        """(B, bands, h + side - 1, w + side - 1) -> (B, classes, h, w)."""
        net = self._patch_net
        maps = net.shared(image)
        side = net.window_px - 2 * net.margin_px
        windows = maps.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)  # a view: (B, h, w, C, side, side)
        batch, height, width = windows.shape[:3]
        places = torch.cartesian_prod(*(torch.arange(n, device=maps.device) for n in (batch, height, width)))
        answers = [net.answer(windows[tuple(part.unbind(1))]) for part in places.split(self.windows)]
        return torch.cat(answers).unflatten(0, (batch, height, width)).permute(0, 3, 1, 2)

"""A support vector machine on the spectrum of a pixel, and where asked on the mean around it: fitted by scikit-learn, answered
by torch.

Cortes & Vapnik 1995, with radial kernels and one machine for each pair of classes, as libsvm has it. What was fitted is kept in
buffers like the weights of any network, so its checkpoint holds no code.
"""

from __future__ import annotations

import math
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import BandMismatch, ConfigError
from terralean.layers.spectra import filled_up, principal_components

NEVER = math.log(torch.finfo(torch.float32).tiny)  # the score of a class that it never saw


class SVM(nn.Module):
    """The class of the pixel in the middle of a patch: (B, bands, h, w) -> scores (B, classes), for any h and w.

    A score is the number of pairs that the class wins, and by how much it does within a third of a pair, as scikit-learn's
    `decision_function`. Has no parameters: it is fitted, not trained by gradients.
    """

    origin: Tensor  # (bands,)
    axes: Tensor  # (components, bands), of principal components
    mean: Tensor  # (F,) of features
    deviation: Tensor  # (F,)
    support: Tensor  # (support, F) standardised features of the pixels that count
    weight: Tensor  # (pairs, support)
    bias: Tensor  # (pairs,)
    gamma: Tensor  # ()
    known: Tensor  # (classes,) whether it saw the class
    first: Tensor  # (pairs,) the class that wins above 0
    second: Tensor  # (pairs,) the class that wins below

    def __init__(self, *, bands: int, classes: int, support: int, components: int, side_px: int) -> None:
        super().__init__()
        if side_px < 1 or side_px % 2 == 0:
            raise ConfigError(f"the side of the square around a pixel is an odd number of px, got {side_px}")
        self.bands, self.num_classes, self.window_px = bands, classes, side_px
        features = (components or bands) * (1 if side_px == 1 else 2)
        pairs = torch.tensor([*combinations(range(classes), 2)], dtype=torch.int64, device="cpu").view(-1, 2)
        self.register_buffer("origin", torch.zeros(bands))
        self.register_buffer("axes", torch.zeros(components, bands))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("support", torch.zeros(support, features))
        self.register_buffer("weight", torch.zeros(len(pairs), support))
        self.register_buffer("bias", torch.zeros(len(pairs)))
        self.register_buffer("gamma", torch.ones(()))
        self.register_buffer("known", torch.ones(classes, dtype=torch.bool))
        self.register_buffer("first", pairs[:, 0].clone(), persistent=False)
        self.register_buffer("second", pairs[:, 1].clone(), persistent=False)

    @property
    def margin_px(self) -> int:
        """How much less than its image `shared` covers, on each side."""
        return self.window_px // 2

    def forward(self, patch: Tensor) -> Tensor:
        """Scores (B, classes)."""
        return self.answer(self.shared(filled_up(patch, least_px=self.window_px)))

    def shared(self, image: Tensor) -> Tensor:
        """image (B, bands, H, W) as Normalise gives it -> features (B, F, H, W), `margin_px` smaller on each side.

        Components of a pixel, or its bands, and their means over the square around it. Only pixels that hold data count: of the
        others all bands are 0.
        """
        if image.shape[1] != self.bands:
            raise BandMismatch(f"the image has {image.shape[1]} bands, the machine was fitted on {self.bands}; give it those")
        if image.dtype != torch.float32 or self.support.dtype != torch.float32:
            raise ConfigError(f"a support vector machine computes in float32, got {image.dtype}; leave --precision at fp32")
        values = image if not len(self.axes) else F.conv2d(image - self.origin[:, None, None], self.axes[..., None, None])
        if self.window_px == 1:
            return values
        present = (image != 0).any(dim=1, keepdim=True).to(values.dtype)
        sums, count = (F.avg_pool2d(x, self.window_px, stride=1, divisor_override=1) for x in (values * present, present))
        edge = self.margin_px
        return torch.cat([values[..., edge:-edge, edge:-edge], sums / count.clamp(min=1)], dim=1)

    def answer(self, windows: Tensor) -> Tensor:
        """windows (B, F, h, w) of what `shared` gives -> scores (B, classes) of the pixel in the middle."""
        # Weights of up to the cost, a thousand say, cancel: what float32 loses in the kernel would be seen in the answer.
        features = (windows[..., windows.shape[2] // 2, windows.shape[3] // 2] - self.mean).double() / self.deviation
        support = self.support.double()
        squares = features.square().sum(dim=1)[:, None] + support.square().sum(dim=1) - 2 * features @ support.T
        decisions = (-self.gamma * squares.clamp(min=0)).exp() @ self.weight.double().T + self.bias
        return self._scores(decisions).float()

    def start_from(self, pixels: Tensor) -> None:
        """Take the whitened principal components of pixels (n, bands), as Normalise gives them, if it sees components."""
        origin, axes = principal_components(pixels, count=len(self.axes))
        self.origin.copy_(origin)
        self.axes.copy_(axes)

    def _scores(self, decisions: Tensor) -> Tensor:
        """decisions (B, pairs) -> (B, classes)."""
        both = self.known[self.first] & self.known[self.second]
        nothing = decisions.new_zeros(len(decisions), self.num_classes)
        won = torch.where(both, (decisions > 0).to(decisions.dtype), 0.0)
        votes = nothing.index_add(1, self.first, won).index_add(1, self.second, both.to(won.dtype) - won)
        by = torch.where(both, decisions, 0.0)
        sums = nothing.index_add(1, self.first, by).index_add(1, self.second, -by)
        return torch.where(self.known, votes + sums / (3 * (sums.abs() + 1)), NEVER)


def svm(*, bands: int, classes: int, support: int, components: int = 0, side_px: int = 1) -> SVM:
    """A machine that knows nothing yet, with so many support vectors; a run's card says how many.

    On bands, or on so many principal components; with a side above 1 also on their means over the square around a pixel.
    """
    return SVM(bands=bands, classes=classes, support=support, components=components, side_px=side_px)

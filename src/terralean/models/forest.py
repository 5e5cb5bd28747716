"""A random forest on what a pixel and the squares around it hold, as tensors: fitted by scikit-learn, answered by torch.

Breiman 2001, "Random Forests". The forest is kept in buffers like the weights of any network, so its checkpoint holds no code
(a pickled one runs whatever was put into it when it is loaded), and it answers wherever torch runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import BandMismatch, ConfigError

SIDES_PX = (3, 7, 15, 31)
WALKERS = 1 << 18  # pixels times trees that go down together; with more, what they look up leaves the processor's cache
LEVELS = 8  # that pixels go down between two looks at which have arrived; looking costs about as much as two levels


class Forest(nn.Module):
    """(B, bands, H, W) as Normalise gives it -> scores (B, classes, H, W): logarithms of the forest's probabilities.

    Has no parameters: it is fitted, not trained by gradients. The nodes of all trees stand in one list; the two below a node
    stand side by side.
    """

    feature: Tensor  # (nodes,) which feature a node looks at
    threshold: Tensor  # (nodes,) the highest value that goes to the lower of the two nodes below; infinite at a leaf
    below: Tensor  # (nodes,) the lower of the two nodes below; at a leaf itself
    root: Tensor  # (trees,)
    probability: Tensor  # (leaves, classes), in the order of the leaves in the list

    def __init__(self, *, bands: int, classes: int, trees: int, nodes: int, sides_px: Sequence[int]) -> None:
        super().__init__()
        if not 1 <= trees <= nodes or (nodes - trees) % 2:
            raise ConfigError(f"no forest has {trees} trees of {nodes} nodes in all: each has an odd number; see a run's card")
        if any(side < 3 or side % 2 == 0 for side in sides_px) or len(set(sides_px)) != len(sides_px):  # noqa: PLR2004
            raise ConfigError(f"sides of squares are different odd numbers of px from 3, got {list(sides_px)}")
        self.bands, self.sides_px = bands, tuple(sides_px)
        self.register_buffer("feature", torch.zeros(nodes, dtype=torch.int32))
        self.register_buffer("threshold", torch.full((nodes,), torch.inf))
        self.register_buffer("below", torch.arange(nodes, dtype=torch.int32))
        self.register_buffer("root", torch.zeros(trees, dtype=torch.int32))
        self.register_buffer("probability", torch.full(((nodes + trees) // 2, classes), 1 / classes))

    def forward(self, image: Tensor) -> Tensor:
        """Scores whose softmax is the mean of the trees' votes. Raises ConfigError where values are not float32."""
        if image.shape[1] != self.bands:
            raise BandMismatch(f"the image has {image.shape[1]} bands, the forest was fitted on {self.bands}; give it those")
        if image.dtype != torch.float32 or self.threshold.dtype != torch.float32:
            raise ConfigError(
                f"a forest compares values with thresholds in float32, got {image.dtype}: fewer digits would send pixels to "
                "other leaves; leave --precision at fp32, it costs a forest no time"
            )
        leaf = (self.below == torch.arange(len(self.below), device=self.below.device)).cumsum(0) - 1
        return torch.stack([self._scores(one, leaf=leaf) for one in image])

    def _scores(self, image: Tensor, *, leaf: Tensor) -> Tensor:
        """image (bands, H, W), leaf (nodes,) the number of a node among the leaves -> (classes, H, W)."""
        rows = features(image[None], sides_px=self.sides_px)[0].flatten(1).T.contiguous()
        parts = rows.split(max(1, WALKERS // len(self.root)))
        votes = [F.embedding_bag(leaf[self._arrive(part)], self.probability, mode="mean") for part in parts]
        # softmax undoes the logarithm, as the probabilities sum to one; what no tree votes for is not quite impossible.
        scores = torch.cat(votes).clamp(min=torch.finfo(torch.float32).tiny).log()
        return scores.T.reshape(-1, *image.shape[-2:])

    def _arrive(self, rows: Tensor) -> Tensor:
        """rows (P, features) -> the leaf of each pixel in each tree, (P, trees)."""
        pixels, trees = len(rows), len(self.root)
        values = rows.flatten()
        start = torch.arange(0, len(values), rows.shape[1], device=rows.device, dtype=torch.int32).repeat_interleave(trees)
        node = self.root.repeat(pixels)
        arrived, walker = torch.empty_like(node), torch.arange(pixels * trees, device=rows.device)
        while len(walker):
            for _ in range(LEVELS):
                value = values.index_select(0, start + self.feature.index_select(0, node))
                node = self.below.index_select(0, node) + (value > self.threshold.index_select(0, node))
            arrived[walker] = node
            going = (self.below.index_select(0, node) != node).nonzero()[:, 0]
            node, start, walker = (kept.index_select(0, going) for kept in (node, start, walker))
        return arrived.view(pixels, trees)


def features(image: Tensor, *, sides_px: Sequence[int]) -> Tensor:
    """Values and, for each side, means and standard deviations of the square around each pixel: (B, C, H, W) -> (B, F, H, W).

    Only pixels inside the image count, and of these only those that hold data: Normalise makes all bands of the others 0. A
    pixel's answer depends on its square alone, to the last bit, so windows that show the whole square agree.
    """
    present = (image != 0).any(dim=1, keepdim=True).double()
    wide = image.double()
    parts = [image]
    for side in sides_px:
        count = _box_sums(present, side_px=side).clamp(min=1)
        mean = _box_sums(wide, side_px=side) / count
        variance = _box_sums(wide.square(), side_px=side) / count - mean.square()
        parts += [mean.float(), variance.clamp(min=0).sqrt().float()]
    return torch.cat(parts, dim=1)


def forest(*, bands: int, classes: int, trees: int, nodes: int, sides_px: str) -> Forest:
    """A forest that knows nothing yet: `trees` of `nodes` in all, on squares such as "3,7,15,31"; a run's card says which."""
    return Forest(bands=bands, classes=classes, trees=trees, nodes=nodes, sides_px=read_sides(sides_px))


def read_sides(text: str) -> tuple[int, ...]:
    """Sides of squares from a card, where a setting is one word: "3,7,15,31"; none from ""."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise ConfigError(f"sides_px {text!r} must be numbers with commas between them, such as 3,7,15,31") from error


def write_sides(sides_px: Sequence[int]) -> str:
    """What `read_sides` reads."""
    return ",".join(map(str, sides_px))


def _box_sums(maps: Tensor, *, side_px: int) -> Tensor:
    """Sum over the square around each pixel, 0 beyond the edges.

    Not by differences of running sums: their rounding depends on where the window begins.
    """
    half = side_px // 2
    rows = F.avg_pool2d(maps, (side_px, 1), stride=1, padding=(half, 0), divisor_override=1)
    return F.avg_pool2d(rows, (1, side_px), stride=1, padding=(0, half), divisor_override=1)

"""What several tests of models use."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from terralean.cost.macs import count_macs


class Beside(TorchDispatchMode):
    """What fvcore counts beside MACs: each output of a norm twice, of nearest resizing once, of bilinear resizing four times,
    each input of a mean over the map once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func)
        if "batch_norm" in name:
            self.operations += 2 * result[0].numel()
        elif "upsample" in name:
            self.operations += result.numel() * (4 if "bilinear" in name else 1)
        elif "mean" in name:
            self.operations += args[0].numel()
        return result


@pytest.fixture
def published_gflops() -> Callable[..., float]:
    """Counts as segmentation papers do, for an image of 512 x 512: MACs and what stands in `Beside`, in units of 1e9."""

    def count(build: Callable[..., nn.Module], **sizes) -> float:
        with torch.device("meta"):
            model = build(bands=3, **sizes).eval()
            image = torch.zeros(1, 3, 512, 512)
        macs = count_macs(model, image)
        with torch.no_grad(), Beside() as beside:
            model(image)
        return (macs.total + beside.operations) / 1e9

    return count

"""Batch norm over the batches of all processes that train together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import convert_sync_batchnorm
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from terralean.errors import ConfigError
from terralean.tasks.together import sum_over_processes

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synchronise(model: nn.Module, *, device: torch.device) -> nn.Module:
    """The model with batch norms that see the batch of all processes; parameters and names of the state dict stay.

    On CUDA they are torch's, which do not run on a CPU; there they are `SharedBatchNorm`.
    """
    return convert_sync_batchnorm(model) if device.type == "cuda" else _share(model)


class SharedBatchNorm(nn.Module):
    """Batch norm in plain tensor operations whose statistics are those of all processes' batches together."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.drop: nn.Module = getattr(norm, "drop", nn.Identity())
        self.act: nn.Module = getattr(norm, "act", nn.Identity())
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, ...) -> normalised, of the same shape."""
        return self.act(self.drop(self._train(x) if self.training else self._evaluate(x)))

    def _evaluate(self, x: Tensor) -> Tensor:
        own = self.running_mean is None
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=own, eps=self.eps)

    def _train(self, x: Tensor) -> Tensor:
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = sum_over_processes(values.new_tensor(values.numel() / values.shape[1]))
        if count < 2:  # noqa: PLR2004 - of one value there is no deviation
            raise ConfigError("batch norm got one value of each channel; raise train.batch or data.tile_px")
        mean = sum_over_processes(_by_channel(values)) / count
        # In a second pass, as the mean of squares less the square of the mean loses digits.
        centred = values - _like(mean, values)
        variance = sum_over_processes(_by_channel(centred.square())) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        out = centred * _like((variance + self.eps).rsqrt(), values)
        if self.weight is not None and self.bias is not None:
            out = out * _like(self.weight, out) + _like(self.bias, out)
        return out.to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def _share(module: nn.Module) -> nn.Module:
    if isinstance(module, _BatchNorm):
        if type(module) not in (*PLAIN, BatchNormAct2d):
            raise ConfigError(
                f"{type(module).__name__} cannot be shared by processes on a CPU, only BatchNorm1d, 2d, 3d and timm's "
                "BatchNormAct2d can; train with one process"
            )
        return SharedBatchNorm(module)
    for name, child in module.named_children():
        setattr(module, name, _share(child))
    return module


def _by_channel(x: Tensor) -> Tensor:
    return x.transpose(0, 1).flatten(1).sum(dim=1)


def _like(channels: Tensor, x: Tensor) -> Tensor:
    return channels.view(1, -1, *[1] * (x.ndim - 2))

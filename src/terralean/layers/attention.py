"""Fused attention, in the precision in which it is quickest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SHORT = 2**18  # queries times keys of one head


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """query (..., N, d), key and value (..., M, d), mask (..., N, M) -> (..., N, d), as F.scaled_dot_product_attention.

    On a CPU short sequences of bf16 are worked through in float32 where gradients are wanted: PyTorch's kernel for the way
    back takes up to ten times as long in bf16 there (docs/experiments.md).
    """
    if not _quicker_in_float(query, key, value):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)
    wide = mask.float() if mask is not None and mask.is_floating_point() else mask
    with torch.autocast("cpu", enabled=False):
        mixed = F.scaled_dot_product_attention(
            query.float(), key.float(), value.float(), attn_mask=wide, dropout_p=dropout, scale=scale
        )
    return mixed.to(query.dtype)


def _quicker_in_float(query: Tensor, key: Tensor, value: Tensor) -> bool:
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and torch.is_grad_enabled()
        and any(part.requires_grad for part in (query, key, value))
        and query.shape[-2] * key.shape[-2] <= SHORT
    )

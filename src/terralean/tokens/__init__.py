"""Methods of token reduction: pure functions that decide which tokens go on, and pure functions that apply a decision."""

from __future__ import annotations

from typing import Literal

from terralean.tokens.algm import ALGMConfig
from terralean.tokens.chance import RandomConfig
from terralean.tokens.dtop import DToPConfig
from terralean.tokens.elvit import ELViTConfig
from terralean.tokens.matp import MATPConfig
from terralean.tokens.sparsevit import SparseViTConfig
from terralean.tokens.threshold import ThresholdConfig
from terralean.tokens.tome import ToMeConfig
from terralean.tokens.topk import TopKConfig

Reduction = (
    MATPConfig
    | RandomConfig
    | TopKConfig
    | ThresholdConfig
    | DToPConfig
    | ToMeConfig
    | ALGMConfig
    | ELViTConfig
    | SparseViTConfig
)
OrOwn = Reduction | Literal["own"] | None  # a method, or the one that a run was trained with, or none
REDUCERS: dict[str, type[Reduction]] = {
    "matp": MATPConfig,
    "random": RandomConfig,
    "topk": TopKConfig,
    "threshold": ThresholdConfig,
    "dtop": DToPConfig,
    "tome": ToMeConfig,
    "algm": ALGMConfig,
    "elvit": ELViTConfig,
    "sparsevit": SparseViTConfig,
}

"""Checkpoints of the LeMeViT authors and others: unwrapped, renamed, and cut to what our model holds, exactly or not at all.

Facts: their trainer writes `state_dict` and `state_dict_ema`; distributed training adds `module.`, downstream models
`backbone.`; before 27 April 2024 meta tokens were called prototypes and tiny had 7 blocks in S3; the detection backbone
carries `extra_norms` that nothing uses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from terralean.errors import MissingFile, WeightsDoNotFit
from terralean.models.lemevit import LeMeViT, LeMeViTConfig, LeMeViTPyramid
from terralean.weights.checkpoint import NAME, load_exactly, read_tensors
from terralean.weights.pickled import read_pickled

RENAMED = {"prototypes": "meta_tokens", "prototype_downsample": "meta_token_downsample"}
# What a change network of the authors' holds beside its backbone.
CHANGE_HEAD = ("conv_pred.", "conv_a.", "pos_embedding", "classifier.", "transformer.", "transformer_decoder.")
AVERAGED = "state_dict_ema"
HELD_UNDER = ("state_dict", "model", AVERAGED)
DEAD_IN_DENSE = re.compile(r"(norm|norm_c|head|meta_token_downsample\.[34])\.")  # after S2 no map hears of meta tokens


def read_state(path: Path, *, averaged: bool = False) -> dict[str, Tensor]:
    """Tensors of a checkpoint by their bare names: ours (a run folder or .safetensors) or a PyTorch file of the authors'.

    Where a trainer's file holds both, these are its plain weights, or those averaged over training if asked.
    """
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise MissingFile(f"no checkpoint at {path}; give a run folder, a .safetensors or a .pth file")
    raw = read_tensors(path) if path.suffix == ".safetensors" else read_pickled(path)
    return {_bare(name): tensor for name, tensor in _unwrap(raw, path=path, averaged=averaged).items()}


def lemevit_config(state: Mapping[str, Tensor], *, source: str) -> LeMeViTConfig:
    """Sizes of the LeMeViT that a state dict was written by, read from its shapes."""
    try:
        depths = [1 + max(int(k.split(".")[2]) for k in state if k.startswith(f"stages.{s}.")) for s in range(5)]
        dims = [state[f"stages.{s}.0.norm1.weight"].shape[0] for s in range(5)]
        meta_tokens, bands = state["meta_tokens"].shape[0], state["downsample_layers.0.0.weight"].shape[1]
    except (KeyError, ValueError) as error:
        first = ", ".join(sorted(state)[:4])
        raise WeightsDoNotFit(f"{source} is no LeMeViT checkpoint; its keys begin with {first}") from error
    sizes = LeMeViTConfig(depths=_five(depths), dims=_five(dims), meta_tokens=meta_tokens, bands=bands)
    return replace(sizes, classes=state["head.weight"].shape[0] if "head.weight" in state else 0)


def load_lemevit(path: Path) -> LeMeViT:
    """The authors' classifier of whatever size the file holds, 7-block tiny and old names included, in evaluation mode."""
    state = {k: v for k, v in read_state(path).items() if not k.startswith("extra_norms.")}
    model = LeMeViT(lemevit_config(state, source=str(path)))
    load_exactly(model, state, source=str(path))
    return model.eval()


def load_lemevit_pyramid(path: Path) -> LeMeViTPyramid:
    """The backbone of the authors' checkpoint for dense prediction; what only the classifier used is dropped."""
    state = read_state(path)
    model = LeMeViTPyramid(lemevit_config(state, source=str(path)))
    load_exactly(model, dense(state, model=model), source=str(path))
    return model.eval()


def _unwrap(raw: Any, *, path: Path, averaged: bool) -> dict[str, Tensor]:
    held = [key for key in HELD_UNDER if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping)]
    if averaged and AVERAGED not in held:
        raise WeightsDoNotFit(f"{path} holds no averaged weights ({AVERAGED}); leave model.averaged out")
    if held:
        raw = raw[AVERAGED if averaged else held[0]]
    if not isinstance(raw, Mapping) or not all(isinstance(v, Tensor) for v in raw.values()):
        raise WeightsDoNotFit(f"{path} holds no state dict; expected tensors by name, perhaps under 'state_dict' or 'model'")
    return dict(raw)


def _bare(name: str) -> str:
    name = name.removeprefix("module.").removeprefix("backbone.")
    first, dot, rest = name.partition(".")
    return RENAMED.get(first, first) + dot + rest


def _five(values: list[int]) -> tuple[int, int, int, int, int]:
    s0, s1, s2, s3, s4 = values
    return s0, s1, s2, s3, s4


def dense(state: Mapping[str, Tensor], *, model: LeMeViTPyramid) -> dict[str, Tensor]:
    """What dense prediction by this model uses of a LeMeViT, whatever network it was part of."""
    own, depth = model.state_dict(), model.config.depths[2]
    dropped = ("extra_norms.", f"stages.2.{depth - 1}.attn.proj_c.", "decode_head.", "auxiliary_head.", *CHANGE_HEAD)
    return {k: v for k, v in state.items() if k in own or not (DEAD_IN_DENSE.match(k) or k.startswith(dropped))}

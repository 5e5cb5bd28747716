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

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from terralean.errors import MissingFile, WeightsDoNotFit
from terralean.models.lemevit import LeMeViT, LeMeViTConfig, LeMeViTPyramid
from terralean.weights.checkpoint import NAME, load_exactly
from terralean.weights.layouts import from_mmseg, from_timm, timm_body

RENAMED = {"prototypes": "meta_tokens", "prototype_downsample": "meta_token_downsample"}
AUXILIARY = "auxiliary."  # the head that only training has
DEAD_IN_DENSE = re.compile(r"(norm|norm_c|head|meta_token_downsample\.[34])\.")  # after S2 no map hears of meta tokens


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint by their bare names: ours (a run folder or .safetensors) or a PyTorch file of the authors'."""
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise MissingFile(f"no checkpoint at {path}; give a run folder, a .safetensors or a .pth file")
    raw = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    return {_bare(name): tensor for name, tensor in _unwrap(raw, path=path).items()}


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
    load_exactly(model, _dense(state, depth=model.config.depths[2]), source=str(path))
    return model.eval()


def load_pretrained(model: nn.Module, path: Path) -> str:
    """Fill a segmenter from a backbone's or a whole segmenter's checkpoint, and say in words what was taken.

    Backbones: LeMeViT's authors' files and timm's classifiers. Segmenters: ours, and UPerNet as mmsegmentation writes it. One
    of other classes gives all but its last layers, one without an auxiliary head leaves the model's as it is. Raises
    WeightsDoNotFit where anything else differs.
    """
    state = from_mmseg(read_state(path))
    own = model.state_dict()
    if any(name in own and not name.startswith("backbone.") for name in state):
        return _load_whole(model, state, path=path)
    backbone = getattr(model, "backbone", model)
    if isinstance(backbone, LeMeViTPyramid):
        load_exactly(backbone, _dense_of_size(state, backbone, path=path), source=str(path))
    elif (body := timm_body(backbone)) is not None:
        load_exactly(body, from_timm(state, body=body), source=str(path))
    else:
        raise WeightsDoNotFit(
            f"{path} holds no {type(model).__name__}, and backbones alone cannot be given to one; train it anew"
        )
    return f"the backbone of {path}"


def _load_whole(model: nn.Module, state: Mapping[str, Tensor], *, path: Path) -> str:
    own, words = model.state_dict(), f"all layers of {path}"
    heads = {name: tensor for name, tensor in state.items() if name in own or name.startswith(("head.", AUXILIARY))}
    body = {name: tensor for name, tensor in state.items() if name not in heads}
    if isinstance(backbone := getattr(model, "backbone", None), LeMeViTPyramid):
        body = _dense_of_size(body, backbone, path=path)
    fresh = tuple(name for name in heads if _of_other_classes(name, heads[name], own.get(name)))
    if fresh:
        words += " but the last, whose classes differ"
    wanted, given = (any(name.startswith(AUXILIARY) for name in names) for names in (own, heads))
    if wanted and not given:
        fresh, words = (*fresh, AUXILIARY), f"{words}; the auxiliary head is new"
    dropped = fresh if wanted else (*fresh, AUXILIARY)
    kept = {name: tensor for name, tensor in heads.items() if not name.startswith(dropped)}
    load_exactly(model, kept | {f"backbone.{k}": v for k, v in body.items()}, source=str(path), fresh=fresh)
    return words


def _of_other_classes(name: str, theirs: Tensor, ours: Tensor | None) -> bool:
    """Whether it is a tensor of a last layer and only the number of classes differs."""
    last = "classify" in name.split(".")
    return last and ours is not None and theirs.shape[0] != ours.shape[0] and theirs.shape[1:] == ours.shape[1:]


def _dense_of_size(state: Mapping[str, Tensor], backbone: LeMeViTPyramid, *, path: Path) -> dict[str, Tensor]:
    """The tensors of a LeMeViT that dense prediction uses, if it is of the backbone's size."""
    found = lemevit_config(state, source=str(path))
    if found.depths != backbone.config.depths or found.dims != backbone.config.dims:
        raise WeightsDoNotFit(
            f"{path} holds a LeMeViT with depths {found.depths} and dims {found.dims}, the model has "
            f"{backbone.config.depths} and {backbone.config.dims}; choose the model of that size"
        )
    return _dense(state, depth=found.depths[2])


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise WeightsDoNotFit(
            f"{path} cannot be read as a checkpoint of tensors ({type(error).__name__}); give a .safetensors or .pth file"
        ) from error


def _unwrap(raw: Any, *, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model", "state_dict_ema"):
        if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping):
            raw = raw[key]
            break
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


def _dense(state: Mapping[str, Tensor], *, depth: int) -> dict[str, Tensor]:
    dropped = ("extra_norms.", f"stages.2.{depth - 1}.attn.proj_c.", "decode_head.", "auxiliary_head.")
    return {k: v for k, v in state.items() if not DEAD_IN_DENSE.match(k) and not k.startswith(dropped)}

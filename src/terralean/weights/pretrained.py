"""What a network starts from: a whole network of its kind or a backbone, of other classes and bands where need be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from terralean.adapt.bands import RGB, first_layer, kernels_for, kinship, resampling, same_bands
from terralean.errors import WeightsDoNotFit
from terralean.models.lemevit import LeMeViTPyramid
from terralean.spec import Bands
from terralean.weights.card import NAME as CARD
from terralean.weights.card import read_card
from terralean.weights.checkpoint import GRADERS, load_exactly
from terralean.weights.layouts import from_mmseg, from_timm, timm_body
from terralean.weights.official import dense, lemevit_config, read_state

AUXILIARY = "auxiliary."  # the head that only training has
QUERIES = ("head.q.weight", "head.class_embed.weight", "head.class_embed.bias")  # of attention-to-mask heads, one a class
ON_THE_WAY = {AUXILIARY: "the auxiliary head is new", GRADERS: "the heads that grade tokens are new"}


def load_pretrained(model: nn.Module, path: Path, *, bands: Bands, averaged: bool = False) -> str:
    """Fill a network from a checkpoint, and say in words what was taken.

    A classifier takes a classifier: LeMeViT the authors' and ours, another what timm wrote. A segmenter takes a backbone
    (LeMeViT's classifiers and change networks, timm's classifiers) or a whole segmenter, ours or UPerNet as mmsegmentation
    writes it. The last layer stays as it is where the classes are of another number, and so does an auxiliary head that the
    file has not, a token-reduction method's heads included; the first layer is made anew from the file's where the bands are
    others (see adapt.bands), and a vision transformer's table of positions is resized. Raises WeightsDoNotFit where anything
    else differs.
    """
    state = from_mmseg(read_state(path, averaged=averaged))
    own = model.state_dict()
    if hasattr(model, "get_classifier"):
        words = _load_classifier(model, state, path=path, bands=bands)
    elif any(name in own and not name.startswith("backbone.") for name in state):
        words = _load_whole(model, state, path=path, bands=bands)
    else:
        words = _load_backbone(model, state, path=path, bands=bands)
    return words


def _load_classifier(model: nn.Module, state: Mapping[str, Tensor], *, path: Path, bands: Bands) -> str:
    """All of a classifier; of one of other classes all but the last layer, and of one without classes likewise."""
    own, last = model.state_dict(), tuple(f"{name}." for name in _last_layers(model))
    heads = {name for name in own if name.startswith(last)}
    fits = all(name in state and state[name].shape == own[name].shape for name in heads)
    kept = {name: tensor for name, tensor in state.items() if fits or not name.startswith(last)}
    told = _fill(model, kept, path=path, bands=bands, fresh=() if fits else tuple(sorted(heads)))
    return f"all layers of {path}{'' if fits else ' but the last, whose classes differ'}{told}"


def _last_layers(model: nn.Module) -> list[str]:
    """Names of what gives the classes; timm's distilled models have two."""
    last: nn.Module | tuple[nn.Module, ...] = cast("Callable[[], Any]", model.get_classifier)()
    wanted = {id(layer) for layer in (last if isinstance(last, tuple) else (last,))}
    return [name for name, layer in model.named_modules() if id(layer) in wanted]


def _load_backbone(model: nn.Module, state: Mapping[str, Tensor], *, path: Path, bands: Bands) -> str:
    backbone = getattr(model, "backbone", model)
    if isinstance(backbone, LeMeViTPyramid):
        told = _fill(backbone, _dense_of_size(state, backbone, path=path), path=path, bands=bands)
    elif (body := timm_body(backbone)) is not None:
        told = _fill(body, from_timm(state, body=body), path=path, bands=bands)
    else:
        raise WeightsDoNotFit(
            f"{path} holds no {type(model).__name__}, and backbones alone cannot be given to one; train it anew"
        )
    return f"the backbone of {path}{told}"


def _load_whole(model: nn.Module, state: Mapping[str, Tensor], *, path: Path, bands: Bands) -> str:
    own, words = model.state_dict(), f"all layers of {path}"
    heads = {name: tensor for name, tensor in state.items() if name in own or name.startswith(("head.", *ON_THE_WAY))}
    body = {name: tensor for name, tensor in state.items() if name not in heads}
    if isinstance(backbone := getattr(model, "backbone", None), LeMeViTPyramid):
        body = _dense_of_size(body, backbone, path=path)
    fresh = tuple(name for name in heads if _of_other_classes(name, heads[name], own.get(name)))
    if fresh:
        words += " but the last, whose classes differ"
    dropped: tuple[str, ...] = ()
    for prefix, told in ON_THE_WAY.items():
        wanted, given = ({name for name in names if name.startswith(prefix)} for names in (own, heads))
        if wanted - given or any(heads[name].shape != own[name].shape for name in wanted.difference(fresh)):
            fresh, words = (*fresh, prefix), f"{words}; {told}"
        elif not wanted:
            dropped = (*dropped, prefix)
    dropped = (*dropped, *fresh)
    kept = {name: tensor for name, tensor in heads.items() if not name.startswith(dropped)}
    return words + _fill(model, kept | {f"backbone.{k}": v for k, v in body.items()}, path=path, bands=bands, fresh=fresh)


def _fill(module: nn.Module, state: Mapping[str, Tensor], *, path: Path, bands: Bands, fresh: tuple[str, ...] = ()) -> str:
    """Load exactly, the first layer made for these bands; what was made of it in words, nothing where nothing was."""
    own, fitted = module.state_dict(), dict(state)
    told = ""
    for name in _first_layers(module, own, state, bands=bands):
        stored = bands_of_file(path, count=state[name].shape[1])
        fitted[name], how = _kernels(state[name], stored=stored, bands=bands)
        told = f"; its first layer was made for {len(bands)} bands from its {len(stored)} ({how})" if how else ""
    for name in _tables(module, fitted):
        fitted[name] = _positions(fitted[name], cast(VisionTransformer, module.get_submodule(name.rpartition(".")[0])))
        told += "; its table of positions was resized"
    load_exactly(module, fitted, source=str(path), fresh=fresh)
    return told


def _tables(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Names of a file's tables of positions that are for another number of patches than the model's."""
    places = {
        f"{name}.pos_embed".removeprefix("."): part
        for name, part in module.named_modules()
        if isinstance(part, VisionTransformer)
    }
    return [
        name
        for name, part in places.items()
        if part.pos_embed is not None and name in state and state[name].shape[1:2] != part.pos_embed.shape[1:2]
    ]


def _positions(table: Tensor, body: VisionTransformer) -> Tensor:
    """A table of positions (1, n, C) of a square grid, bicubically resized to the model's."""
    own = 0 if body.no_embed_class else body.num_prefix_tokens
    return resample_abs_pos_embed(table, list(body.patch_embed.grid_size), num_prefix_tokens=own)


def _of_other_bands(theirs: Tensor, ours: Tensor, *, count: int) -> bool:
    """Whether it is the kernel of a convolution over the bands, and only their number differs."""
    one, other = tuple(theirs.shape), tuple(ours.shape)
    if len(one) != 4 or len(other) != 4:  # noqa: PLR2004 - (O, C, h, w)
        return False
    return one[1] != other[1] == count and (one[0], one[2:]) == (other[0], other[2:])


def _first_layers(module: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor], *, bands: Bands) -> list[str]:
    """Names of layers over bands: those that differ in their number, else the first, whose bands may be others."""
    differ = [name for name, tensor in state.items() if name in own and _of_other_bands(tensor, own[name], count=len(bands))]
    first = first_layer(module, bands=len(bands))
    if differ or first is None or first not in state:
        return differ
    return [first] if state[first].shape == own[first].shape else []


def bands_of_file(path: Path, *, count: int) -> Bands:
    """The bands that a file's network sees: the card's, else red, green and blue for three, else nothing is known of them."""
    if path.is_dir() and (path / CARD).is_file():
        return read_card(path).bands
    return Bands(names=RGB if count == len(RGB) else tuple(f"band_{i}" for i in range(1, count + 1)))


def _kernels(weight: Tensor, *, stored: Bands, bands: Bands) -> tuple[Tensor, str]:
    """Of the first layer (O, C, h, w), for these bands, and by what these were found; nothing where they are the same."""
    known = kinship(stored, bands)
    if known == "wavelengths" and len(stored) == weight.shape[1] and (found := resampling(stored, bands)) is not None:
        return found.kernels(weight), "by wavelength"
    if weight.shape[1] == len(bands):
        return weight, ""
    source = same_bands(stored.names, bands.names) if bands.named else (None,) * len(bands)
    return kernels_for(weight, source=source), _told(source, bands)


def _told(source: tuple[int | None, ...], bands: Bands) -> str:
    known = [name for name, place in zip(bands.names, source, strict=True) if place is not None]
    new = [name for name, place in zip(bands.names, source, strict=True) if place is None]
    parts = [f"{', '.join(known)} as they were"] if known else []
    return " and ".join([*parts, f"{', '.join(new)} the mean of all"] if new else parts)


def _of_other_classes(name: str, theirs: Tensor, ours: Tensor | None) -> bool:
    """Whether it is a tensor of a last layer and only the number of classes differs."""
    last = "classify" in name.split(".") or name.endswith(QUERIES)
    return last and ours is not None and theirs.shape[0] != ours.shape[0] and theirs.shape[1:] == ours.shape[1:]


def _dense_of_size(state: Mapping[str, Tensor], backbone: LeMeViTPyramid, *, path: Path) -> dict[str, Tensor]:
    """The tensors of a LeMeViT that dense prediction uses, if it is of the backbone's size."""
    found = lemevit_config(state, source=str(path))
    if found.depths != backbone.config.depths or found.dims != backbone.config.dims:
        raise WeightsDoNotFit(
            f"{path} holds a LeMeViT with depths {found.depths} and dims {found.dims}, the model has "
            f"{backbone.config.depths} and {backbone.config.dims}; choose the model of that size"
        )
    kept = dense(state, model=backbone)
    beyond = tuple(f"{part}.{stage}." for part in ("stages", "downsample_layers") for stage in range(len(backbone.stages), 5))
    return {name: tensor for name, tensor in kept.items() if not name.startswith(beyond)} if beyond else kept

"""Write a model with its card, and read it back exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from terralean.errors import ConfigError, RunError, WeightsDoNotFit
from terralean.models import create
from terralean.tokens import OrOwn, Reduction
from terralean.weights.card import Card, read_card, write_card

NAME = "weights.safetensors"
GRADERS = "heads."  # parameters of a method of token reduction, by the layers that it acts at


def save_checkpoint(model: nn.Module, card: Card, folder: Path) -> None:
    """Write weights, then card: a folder with a card is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model.state_dict(), folder / NAME)
    write_card(card, folder)


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """Write tensors; the file appears whole."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))
    part.replace(path)


def load_checkpoint(folder: Path, *, reduce: OrOwn = "own") -> tuple[nn.Module, Card]:
    """The model of a checkpoint folder in evaluation mode, and its card.

    With another method of token reduction, or with none, model and card have that one. Raises ConfigError where the method has
    parameters that the run did not train.
    """
    card = read_card(folder)
    state = read_tensors(folder / NAME)
    if reduce != "own":
        card = replace(card, reduce=reduce)
    model = create(card.model, bands=len(card.bands), classes=len(card.classes), reduce=card.reduce, **card.sizes)
    if reduce != "own":
        state = _without_other_graders(state, model, reduce=reduce, folder=folder)
    load_exactly(model, state, source=str(folder / NAME))
    return model.eval(), card


def _without_other_graders(
    state: dict[str, Tensor], model: nn.Module, *, reduce: Reduction | None, folder: Path
) -> dict[str, Tensor]:
    own = model.state_dict()
    if any(name.startswith(GRADERS) and name not in state for name in own):
        assert reduce is not None, "without a method there is nothing to grade tokens"
        raise ConfigError(
            f"{folder} has not been trained with the heads that reduce.method={reduce.method} grades tokens by; train with "
            f"--set reduce.method={reduce.method}, or use a method without parameters: tome, elvit, algm, random, topk"
        )
    return {name: tensor for name, tensor in state.items() if name in own or not name.startswith(GRADERS)}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file."""
    if not path.is_file():
        raise RunError(f"{path} is missing beside its card; copy the whole run folder")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsDoNotFit(f"{path} is not a safetensors file ({error}); copy it again or train again") from error


def load_exactly(model: nn.Module, state: dict[str, Tensor], *, source: str, fresh: tuple[str, ...] = ()) -> None:
    """Fill a model from a state dict with its very keys and shapes, but for keys beginning with one of `fresh`.

    Raises WeightsDoNotFit with what is missing, left over and of another shape; the model is then unchanged.
    """
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(fresh or "\0")}
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{k} {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
        for k in own.keys() & state.keys()
        if state[k].shape != own[k].shape
    ]
    if missing or extra or shapes:
        lists = {"missing": missing, "left over": extra, "of another shape": sorted(shapes)}
        text = "\n".join(f"  {what}: {_some(names)}" for what, names in lists.items() if names)
        raise WeightsDoNotFit(f"{source} does not fit the model\n{text}\nchoose the model these weights belong to")
    model.load_state_dict(state, strict=not fresh)


def _some(names: list[str], *, most: int = 6) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")

"""How right a model is, for the figure beside how fast it is: given by the user, by a run's card, or printed in the paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from terralean.benchmark.published import IMAGENET, MILLION_AID, accuracies
from terralean.errors import ConfigError
from terralean.weights.card import read_card

PUBLISHED = {"published": IMAGENET, "published-scenes": MILLION_AID}
KEY = "OA"  # in a card; overall accuracy of a classifier is its top-1


class Accuracy(NamedTuple):
    """Of one model."""

    percent: float
    source: str  # given, a run's folder, or the name of a published table
    published: bool


def read_accuracies(given: Sequence[str], *, models: Sequence[str]) -> dict[str, Accuracy]:
    """By model, from words of the form MODEL=PERCENT, MODEL=RUN, "published" or "published-scenes"; none: "published".

    What is given for a model comes before what is published. Raises ConfigError for what cannot be, for a model that is not
    among `models`, and where no model has one.
    """
    found: dict[str, Accuracy] = {}
    for word in given or ["published"]:
        if word in PUBLISHED:
            found = _published(word, models=models) | found
        else:
            model, accuracy = _one(word, models=models)
            found[model] = accuracy
    if not found:
        raise ConfigError(
            f"no accuracy is known of {', '.join(models)}; give one with --accuracy {models[0]}=PERCENT or "
            f"--accuracy {models[0]}=RUN"
        )
    return found


def _published(word: str, *, models: Iterable[str]) -> dict[str, Accuracy]:
    setting = PUBLISHED[word]
    printed = accuracies(setting)
    return {
        name: Accuracy(printed[name], f"published, {setting.name} at {setting.size_px} px", True)
        for name in models
        if name in printed
    }


def _one(word: str, *, models: Sequence[str]) -> tuple[str, Accuracy]:
    model, equals, value = word.partition("=")
    if not equals or not value:
        raise ConfigError(
            f"--accuracy must be MODEL=PERCENT, MODEL=RUN, {' or '.join(PUBLISHED)}, got {word!r}; e.g. lemevit_tiny=79.07"
        )
    if model not in models:
        near = get_close_matches(model, models) or models
        raise ConfigError(f"--accuracy {word}: {model!r} is not measured in this run; nearest: {', '.join(near)}")
    try:
        percent = float(value)
    except ValueError:
        return model, Accuracy(_of_run(Path(value), model=model), value, False)
    if not 1 <= percent <= 100:  # noqa: PLR2004 - a share of one, most likely, below it
        raise ConfigError(f"--accuracy {word}: give percent between 1 and 100, e.g. {model}=79.07")
    return model, Accuracy(percent, "given", False)


def _of_run(run: Path, *, model: str) -> float:
    """Percent, of the test split of a run of this model."""
    card = read_card(run)
    if card.task != "classification":
        raise ConfigError(f"{run} is a run of {card.task}; a figure shows the top-1 accuracy of classifiers")
    own = card.sizes.get("backbone", card.model)
    if own != model:
        raise ConfigError(f"{run} is a run of {own}, not of {model}; give its accuracy to {own}, or another run")
    found = card.metrics.get("test", {}).get(KEY)
    value = found.get("value") if isinstance(found, dict) else found
    if not isinstance(value, int | float):
        raise ConfigError(f"{run} has no accuracy on test data in its card; measure it with terralean evaluate {run}")
    return 100 * value

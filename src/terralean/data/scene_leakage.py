"""Whether images that judge a model were, in effect, seen in training. One sentence, with numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from terralean.data.config import SplitName
from terralean.data.scene_check import Seen
from terralean.data.scene_index import SceneImage
from terralean.data.scene_split import SceneSplit
from terralean.data.words import counted

JUDGES: tuple[SplitName, ...] = ("test", "validation")


def scene_leakage(split: SceneSplit, *, seen: Mapping[str, Seen]) -> str:
    """Compare test, and validation, with training: groups, and pixels. A sentence, of which the first word is LEAKS if so.

    `seen` is what `check_images` saw.
    """
    train = split.of("train")
    judges = {name: split.of(name) for name in JUDGES if split.of(name)}
    if not train or not judges:
        return "no leak found: there is nothing to compare, no images that judge or none that train"
    findings = [
        clause
        for name, judged in judges.items()
        for clause in (_repeating(judged, train, name, seen), _grouped(judged, train, name))
        if clause
    ]
    if findings:
        return f"LEAKS: {'; '.join(findings)}"
    counts = " and ".join(f"{len(judged)} {name}" for name, judged in judges.items())
    grouped = any(image.group for image in split.images)
    rest = " or shares its group" if grouped else "; which are neighbours on the ground is not known, data.group can say"
    return f"no leak found: none of {counts} images has the very same pixels as one of {len(train)} training images{rest}"


def _repeating(judged: Sequence[SceneImage], train: Sequence[SceneImage], name: str, seen: Mapping[str, Seen]) -> str | None:
    pairs = _shared(judged, train, lambda image: seen[image.path].digest)
    if not pairs:
        return None
    one, other = pairs[0]
    return (
        f"{len(pairs)} of {len(judged)} {name} images hold the same pixels as a training image "
        f"({Path(one.path).name} = {Path(other.path).name})"
    )


def _grouped(judged: Sequence[SceneImage], train: Sequence[SceneImage], name: str) -> str | None:
    pairs = _shared(judged, train, lambda image: image.group)
    if not pairs:
        return None
    groups = sorted({str(image.group) for image, _ in pairs})
    told = f"{counted(len(groups), 'group')}, {groups[0]} for one"
    return f"{len(pairs)} of {len(judged)} {name} images share a group with training ({told})"


def _shared(
    judged: Sequence[SceneImage], train: Sequence[SceneImage], key: Callable[[SceneImage], str | None]
) -> list[tuple[SceneImage, SceneImage]]:
    """Judged images, each with the first training image of the same key; those without a key have nothing in common."""
    first: dict[str | None, SceneImage] = {}
    for image in train:
        first.setdefault(key(image), image)
    first.pop(None, None)
    return [(image, first[key(image)]) for image in judged if key(image) in first]

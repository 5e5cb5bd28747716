"""Read a recipe, apply `key=value` changes, refuse what no config knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from terralean.data.config import DataConfig
from terralean.data.scene_config import SceneDataConfig
from terralean.errors import ConfigError, RunError, UnknownName
from terralean.tokens import REDUCERS, OrOwn, Reduction
from terralean.train.experiments import EXPERIMENTS, AnyExperiment
from terralean.train.scene_config import SceneExperiment

Config = TypeVar("Config")
LISTS = ("tuple_type", "list_type")  # what pydantic calls a value that is no list


def names() -> list[str]:
    """Recipes that come with the package."""
    return sorted(file.name.removesuffix(".yaml") for file in files(__package__).iterdir() if file.name.endswith(".yaml"))


def read(recipe: str, *, changes: Sequence[str] = ()) -> AnyExperiment:
    """The experiment of a recipe's name or file, with `section.key=value` changes, each value written as in YAML."""
    if isinstance(changes, str):
        raise ConfigError(f"changes are a list of key=value, got the text {changes!r}; write [{changes!r}]")
    written = _load(recipe)
    values = dict(written)
    for change in changes:
        _apply(values, change)
    _check_method(values.get("reduce"), written.get("reduce"), source=recipe)
    return parse(values, source=recipe)


def data_config(changes: Sequence[str]) -> DataConfig:
    """How data are read where there is no recipe: the defaults with `data.key=value` changes."""
    return data_settings(DataConfig, changes)


def data_settings(config: type[Config], changes: Sequence[str]) -> Config:
    """The defaults of a config of data with `data.key=value` changes."""
    values: dict[str, Any] = {"data": {}}
    for change in changes:
        _apply(values, change)
    if others := sorted(values.keys() - {"data"}):
        raise ConfigError(f"--set {others[0]}: only data.key=value has a meaning here, e.g. data.group='tile[0-9]+'")
    _check_keys(values["data"], config, source="--set", path="data.")
    return _validate(config, values["data"], source="--set", path="data.")


def reduction(changes: Sequence[str]) -> OrOwn:
    """The method of token reduction that `reduce.key=value` changes name in place of a run's own; `reduce=null` is none."""
    values: dict[str, Any] = {}
    for change in changes:
        _apply(values, change)
    if others := sorted(values.keys() - {"reduce"}):
        raise ConfigError(f"--set {others[0]}: only reduce.key=value has a meaning here, e.g. reduce.method=tome")
    if not values:
        return "own"
    if values["reduce"] is None:
        return None
    if not isinstance(values["reduce"], Mapping):
        raise ConfigError(f"--set reduce={values['reduce']}: write reduce.method={values['reduce']}, or reduce=null for none")
    return _reduction(values["reduce"], source="--set")


def parse(values: Mapping[str, Any], *, source: str) -> AnyExperiment:
    """An experiment from nested values. Raises ConfigError naming the key, what it got and what is expected."""
    task = values.get("task")
    if task not in EXPERIMENTS:
        found = "no task" if task is None else f"task {task!r}"
        raise ConfigError(f"{source}: {found}; write task: and one of {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[task]
    if isinstance(values.get("reduce"), Mapping) and "reduce" in get_type_hints(experiment):
        values = {**values, "reduce": _reduction(values["reduce"], source=source)}
    if isinstance(values.get("adapt"), Mapping) and "adapt" in get_type_hints(experiment):
        values = {**values, "adapt": _adaptation(values["adapt"], source=source)}
    _check_keys(values, experiment, source=source, path="")
    return _validate(experiment, values, source=source, path="")


def read_run(run: Path) -> tuple[AnyExperiment, str]:
    """The experiment of a training run, and its text."""
    path = run / "recipe.yaml"
    if not path.is_file():
        raise RunError(f"{run} is not a run of terralean: it has no recipe.yaml; give the folder named with --out in training")
    return read(str(path)), path.read_text()


def read_scene_data(run: Path) -> SceneDataConfig | None:
    """How a run of scene recognition reads its images; None for a checkpoint without a recipe, or of another task."""
    if not (run / "recipe.yaml").is_file():
        return None
    experiment, _ = read_run(run)
    return experiment.data if isinstance(experiment, SceneExperiment) else None


def _adaptation(values: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """A section `adapt:` with the field's name for `from`, which Python keeps for itself."""
    if "start" in values:
        raise ConfigError(f"{source}: no setting adapt.start; nearest: adapt.from")
    if values.get("from") is None:
        raise ConfigError(f"{source}: adapt: has no from; set adapt.from to the run folder that is to be adapted")
    return {"start" if key == "from" else key: value for key, value in values.items()}


def _reduction(values: Mapping[str, Any], *, source: str) -> Reduction:
    """The method of token reduction that a section `reduce:` names."""
    method, known = values.get("method"), ", ".join(REDUCERS)
    if method not in REDUCERS:
        if method is None:
            raise ConfigError(f"{source}: reduce: has no method; set reduce.method to one of {known}")
        near = get_close_matches(str(method), REDUCERS) or [known]
        raise UnknownName(f"{source}: no reduce.method {method!r}; nearest: {', '.join(near)}")
    config: type[Reduction] = REDUCERS[method]
    _check_keys(values, config, source=source, path="reduce.")
    return _validate(config, values, source=source, path="reduce.")


def _check_method(changed: Any, written: Any, *, source: str) -> None:
    """Raise ConfigError where changes name another method of token reduction and leave keys of the one that was written."""
    if not isinstance(changed, Mapping) or not isinstance(written, Mapping):
        return
    method, before = changed.get("method"), written.get("method")
    if before in (None, method) or method not in REDUCERS:
        return
    known = {field.name for field in fields(REDUCERS[method])}
    if left := [f"reduce.{key}" for key in changed if key in written and key not in known]:
        raise ConfigError(
            f"{source}: {', '.join(left)}: of its method {before}, not of {method}; say --set 'reduce={{method: {method}}}', "
            f"which replaces the whole section, in place of --set reduce.method={method}"
        )


def _load(recipe: str, *, within: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a file; where it is `like:` another recipe, that one's values with its own in their place."""
    values = _read_yaml(recipe)
    like = values.pop("like", None)
    if like is None:
        return values
    if not isinstance(like, str):
        raise ConfigError(f"{recipe}: like: names a recipe or a .yaml file, got {like!r}")
    beside = Path(recipe).parent / like if like.endswith((".yaml", ".yml")) else like
    if str(beside) in (*within, recipe):
        raise ConfigError(f"{recipe}: like: leads back to {beside}; a recipe cannot be like itself")
    return _merged(_load(str(beside), within=(*within, recipe)), values)


def _merged(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Sections key by key; anything else is the other's where it has it."""
    both = {
        key: _merged(values[key], other)
        for key, other in others.items()
        if isinstance(other, Mapping) and isinstance(values.get(key), Mapping)
    }
    return {**values, **others, **both}


def _read_yaml(recipe: str) -> dict[str, Any]:
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UnknownName(f"no recipe file at {recipe}; recipes of the package: {', '.join(names())}")
        try:
            text = path.read_text()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{recipe} is not text ({error}); give a recipe, which is YAML") from error
    elif recipe in names():
        text = files(__package__).joinpath(f"{recipe}.yaml").read_text()
    else:
        near = get_close_matches(recipe, names())
        told = f"nearest: {', '.join(near)}" if near else "terralean list recipes names all"
        raise UnknownName(f"no recipe {recipe!r}; {told}; a file of your own ends in .yaml")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{recipe} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{recipe} holds {type(values).__name__}, expected sections such as model: and train:")
    return values


def _apply(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {change!r} is not key=value, e.g. --set train.lr=0.0005")
    *sections, last = key.strip().split(".")
    for section in sections:
        inner = values.get(section)
        values[section] = values = dict(inner) if isinstance(inner, dict) else {}
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {change!r}: the value is not YAML; write colours and names with signs in quotes ({error})"
        ) from error


def _validate(config: type[Config], values: Mapping[str, Any], *, source: str, path: str) -> Config:
    try:
        return TypeAdapter(config).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = path + ".".join(str(part) for part in first["loc"])
        got = "" if first["type"] == "missing" else f", got {first['input']!r}"
        one = first["type"] in LISTS and isinstance(first["input"], str | int | float)
        told = f"a list is written in brackets, e.g. {key}=[{first['input']}]" if one else first["msg"]
        raise ConfigError(f"{source}: {key}: {told}{got}") from error


def _check_keys(values: Any, config: Any, *, source: str, path: str) -> None:
    """Raise ConfigError at the first key, at any depth, that the config class does not have."""
    if not is_dataclass(config) or is_dataclass(values):
        return
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: {path.rstrip('.') or 'the recipe'} must be a section with keys, got {values!r}")
    hints = get_type_hints(config)
    known = [field.name for field in fields(config)]
    for key, value in values.items():
        if key not in known:
            near = get_close_matches(str(key), known) or known
            raise ConfigError(f"{source}: no setting {path}{key}; nearest: {', '.join(path + name for name in near)}")
        if value is None and NoneType in get_args(hints[key]):
            continue
        for inner in (hints[key], *get_args(hints[key])):
            _check_keys(value, inner if isinstance(inner, type) else None, source=source, path=f"{path}{key}.")

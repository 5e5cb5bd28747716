"""Experiments as YAML files, and the reader that turns one into config dataclasses."""

from terralean.recipes.reader import data_config, names, parse, read, read_run

__all__ = ["data_config", "names", "parse", "read", "read_run"]

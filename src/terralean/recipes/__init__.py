"""Experiments as YAML files, and the reader that turns one into config dataclasses."""

from terralean.recipes.reader import names, parse, read, read_run

__all__ = ["names", "parse", "read", "read_run"]

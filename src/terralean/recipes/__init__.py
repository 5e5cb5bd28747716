"""Experiments as YAML files, and the reader that turns one into config dataclasses."""

from terralean.recipes.reader import names, read, to_yaml

__all__ = ["names", "read", "to_yaml"]

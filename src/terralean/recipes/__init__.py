"""Experiments as YAML files, and the reader that turns one into config dataclasses."""

from terralean.recipes.reader import data_config, data_settings, names, parse, read, read_run, read_scene_data, reduction

__all__ = ["data_config", "data_settings", "names", "parse", "read", "read_run", "read_scene_data", "reduction"]

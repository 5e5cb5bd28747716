"""Terralean: from overhead imagery to maps, with vision transformers whose cost follows the content of the scene."""

__version__ = "0.1.0"

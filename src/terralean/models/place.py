"""What a method of token reduction has to know of the network that it is to work in, to add its parameters."""

from __future__ import annotations

from dataclasses import dataclass

from terralean.models.atm import ClassMode


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A network with attention layers."""

    width: int  # channels of its tokens
    depth: int  # layers
    classes: int
    class_mode: ClassMode  # of heads on the way

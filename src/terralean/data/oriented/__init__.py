"""Oriented objects: read from the formats in which they are published, cut into tiles, turned and flipped."""

"""Trained networks made to fit: to other bands, and by low-rank adapters to other data."""

"""Trained networks made to fit: to other bands."""

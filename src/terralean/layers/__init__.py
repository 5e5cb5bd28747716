"""Modules that two or more models use."""

"""Checkpoints: a folder with `weights.safetensors` and `card.json`; exact loading; the layouts other people's files have."""

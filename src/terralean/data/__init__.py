"""Datasets: found in folders, split so that nothing leaks, measured, cropped, augmented."""

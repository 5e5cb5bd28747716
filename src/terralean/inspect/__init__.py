"""What a scene, a dataset or a run is, and what is wrong with it."""

"""Where meta tokens look: attention as rasters on the scene's grid, as a figure and as numbers, for scenes of any size."""

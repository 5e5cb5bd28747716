"""Scenes on disk: reading any raster by windows, labels from rasters and polygons, maps with names, colours and style."""

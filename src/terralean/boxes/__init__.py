"""Oriented boxes: normal form, corners, exact overlap, suppression, merging over windows, coding. Tensors in, tensors out.

A box is centre x, centre y, width, height in px and angle in radians, positive turning the x axis towards the y axis of the
image (y down, so clockwise on screen). In normal form (`le90`) the width is the long edge and the angle in [-pi/2, pi/2).
Coordinates are measured from the outer corner of the first pixel: pixel (row, col) covers col..col + 1 by row..row + 1.
"""

"""Labelled pixels of cubes: found, dealt to training, validation and test, and cut out with what is around them."""

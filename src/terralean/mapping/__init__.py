"""From a scene of any size to a map on disk: plan windows, predict, blend, write, in bounded memory."""

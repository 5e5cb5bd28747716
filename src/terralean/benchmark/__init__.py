"""How fast models are beside each other: parameters, MACs, images per second with their spread, memory."""

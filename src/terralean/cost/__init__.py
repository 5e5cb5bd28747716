"""What a module costs: parameters, multiply-accumulates, time and memory. One meter for every room."""

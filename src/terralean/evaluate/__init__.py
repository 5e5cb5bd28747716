"""How good a map is: scores with intervals, baselines, leakage, cost, and the page that says so."""

"""Methods of token reduction: pure functions that decide which tokens go on, and pure functions that apply a decision."""

"""Training runs: resumable folders that end in a checkpoint with its card."""

"""What is learned: for each task its loss, its metric, how scores become an answer and how answers are blended."""

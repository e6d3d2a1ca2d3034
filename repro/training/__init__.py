"""Training: the one loop, its order of data, its checkpoints, and evaluation."""

"""A matrix from its configuration to its result: scheduling, progress, the pipeline."""

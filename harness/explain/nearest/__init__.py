"""The nearest guest to a user's VM that can run here: from known parts only, and what it lacks."""

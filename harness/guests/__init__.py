"""The guests: what they say, and how their results are read."""

"""From a recording to evidence, and from evidence to verdicts."""

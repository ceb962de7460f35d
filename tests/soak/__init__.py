"""Runs under fault injection: `make soak`.  See docs/reliability.md for what has to hold."""

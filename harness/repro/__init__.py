"""The catalogue of reproducers, and what is built on it: bisecting, minimising, regressions."""

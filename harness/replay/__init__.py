"""A recording's events drive the Python chips, which predict the rest."""

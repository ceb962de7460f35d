"""The conservation account of every interrupt, per pin and per vector."""

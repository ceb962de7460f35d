"""Importers: what other people have at hand of an interrupt problem, read into frozen types."""

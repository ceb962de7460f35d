"""Backend against backend: what differs, and whether a known difference explains it."""

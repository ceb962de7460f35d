"""Matrix files: read, checked, expanded into cases, and which of them this machine can run."""

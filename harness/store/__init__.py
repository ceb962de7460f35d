"""The files of a run directory: what is written, and how it is read again."""

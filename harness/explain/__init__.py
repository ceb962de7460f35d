"""A user's machine explained: evidence -> an answer, as frozen types; no clock and no file."""

"""A case is run and everything seen of it is written down; nothing is concluded yet."""

"""How each kind of guest is driven from its first word to its last."""

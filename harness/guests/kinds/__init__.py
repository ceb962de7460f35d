"""The kinds of guests: what each is in a configuration and on a command line."""

"""A user's machine explained: evidence -> an answer, as frozen types; no clock and no file.

Two modules are not of that kind: ``own_recording`` reads a case that ran here as evidence, and
``reproduction`` runs the nearest guest.
"""

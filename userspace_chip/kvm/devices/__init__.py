"""A PC's devices beside its interrupt controllers, as far as test guests ask for them.

Each is a state machine; what it drives (lines, text, the end of the guest) are functions that it
is made with.
"""

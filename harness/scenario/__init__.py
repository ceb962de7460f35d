"""Scenarios: one stimulus for every interrupt controller, and the exact same log expected.

``language`` reads YAML, ``compile`` makes a :class:`~harness.scenario.program.Program` of it, which
the probe guest (``images/probe``) and the Python chips (``predict``) both execute; both give a
:class:`~harness.scenario.log.Log`.
"""

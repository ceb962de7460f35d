"""A run in the forms that other tools read; what they say is in :mod:`harness.report.checks`."""

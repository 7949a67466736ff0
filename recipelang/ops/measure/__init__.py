"""Metrics and evaluation, one file a verb: what gates and `best of` compare."""

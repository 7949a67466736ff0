"""Merges, one file a verb: one model from several, by arithmetic on their weights."""

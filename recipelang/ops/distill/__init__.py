"""Distillation, one file a verb: a student learns from a teacher."""

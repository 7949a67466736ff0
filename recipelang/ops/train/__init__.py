"""Training, one file a verb: a model changed by gradient steps."""

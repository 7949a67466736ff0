"""Sources, one file a verb: models, adapters and tokenizers from outside, and new models."""

"""The language: from a source text to a checked program, and back to text."""

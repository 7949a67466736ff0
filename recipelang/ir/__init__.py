"""The recipe graph and what is done to it: printing, parsing, verifying, building."""

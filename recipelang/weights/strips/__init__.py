"""Elementwise array code, run a strip at a time by the compiled library: what one operation makes
is still in the first cache when the next one takes it.

:mod:`.lazy` has arrays that only note what is asked of them, :mod:`.program` turns what leads to an
array into instructions and runs them, :mod:`.arrays` offers them to the engine.
"""

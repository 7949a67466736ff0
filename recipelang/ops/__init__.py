"""Operations: one file a verb, found by its name.

See :mod:`recipelang.ops.spec` and :mod:`recipelang.ops.registry`.
"""

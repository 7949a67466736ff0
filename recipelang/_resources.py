"""Where the grammar's files are: packaged beside this module, or at the top of a checkout.

Example:
    >>> grammar_file("tokens.toml").name
    'tokens.toml'
"""

from pathlib import Path

__all__ = ["grammar_file"]


def grammar_file(name: str) -> Path:
    """The path of a file of ``grammar/``; the packaged copy wins, so that a wheel is whole."""
    here = Path(__file__).resolve().parent
    packaged = here / "grammar" / name
    return packaged if packaged.exists() else here.parent / "grammar" / name

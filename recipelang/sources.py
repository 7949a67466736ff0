"""Finds what a URI names on this machine. Nothing is imported, downloaded or run.

A URI is a path, ``package:import_name/path`` (a file of an installed package, which is found
without importing it) or ``hf:org/name`` (the machine's Hugging Face cache, used as it is).

Example:
    >>> locate("package:none/m.gguf")
    Traceback (most recent call last):
    ...
    recipelang.diagnostics.diagnostic.RecipeError: E0722: the package `none` is not installed
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recipelang.diagnostics import RecipeError, fault
from recipelang.weights.strict_json import readable

__all__ = ["Located", "locate", "refuse_unsafe"]

SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):(.*)", re.DOTALL)
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,127}")
KNOWN = ("hf", "package")


@dataclass(frozen=True, slots=True)
class Located:
    """``path`` is absolute. ``revision`` is the commit of an ``hf:`` source, else empty."""

    uri: str
    path: Path
    revision: str = ""


def locate(uri: str, revision: str | None = None, *, folder: Path | None = None) -> Located | None:
    """Where the source is, or None for an ``hf:`` source that was not fetched yet.

    ``folder`` is what relative paths are relative to (the recipe's folder).

    Raises RecipeError: E0720 nothing there, E0721 a URI that is not allowed, E0722 a package that
    is not installed or lacks the file, E0723 no Hugging Face hub on this machine.
    """
    refuse_unsafe(uri, revision)
    match = SCHEME.fullmatch(uri)
    if match is None:
        path = ((folder or Path.cwd()) / uri).absolute()
        if not path.exists():
            raise fault("E0720", f"`{uri}` does not exist", help=f"looked for it at `{path}`")
        return Located(uri, path)
    scheme, rest = match[1], match[2]
    if scheme == "package":
        return Located(uri, _in_package(uri, rest))
    return _in_hub_cache(uri, rest, revision)


def refuse_unsafe(uri: str, revision: str | None = None) -> None:
    """Refuse URIs that no source has: control characters, credentials, steps upwards. Raises
    E0721."""
    if not uri or len(uri) > 4096 or not uri.isprintable():
        raise _refused(uri, "it is empty, very long or holds control characters")
    match = SCHEME.fullmatch(uri)
    wrong = revision_fault(uri, revision)
    if wrong:
        help = 'a commit is written `at "REV"`, behind an `hf:` repository'
        raise fault("E0721", wrong, help=help)
    if match is None:
        return
    if "@" in match[2]:
        raise fault(
            "E0721",
            f"the URI of scheme `{match[1]}:` holds an `@`: credentials do not stand in a recipe",
            help='a revision is written `at "REV"`, a token `token = secret("HF_TOKEN")`',
        )
    if match[1] not in KNOWN:
        raise fault(
            "E0721", f"the scheme `{readable(match[1])}:` cannot be read",
            help="write a path, `package:import_name/file` or `hf:org/name`; download others first",
        )  # fmt: skip
    steps = re.split(r"[/\\]", match[2])
    if ".." in steps or "\\" in match[2] or match[2].startswith("/") or "" in steps[:-1]:
        raise _refused(uri, "its path leaves its source")


def revision_fault(uri: str, revision: str | None) -> str:
    """What is wrong with a revision, empty where nothing is."""
    if revision is None:
        return ""
    if not REVISION.fullmatch(revision) or ".." in revision:
        return f'the revision "{readable(revision)}" is not a commit, branch or tag'
    return "" if uri.startswith("hf:") else "a revision goes with an `hf:` repository only"


def _refused(uri: str, why: str) -> RecipeError:
    help = "write a path, `package:import_name/file` or `hf:org/name`"
    return fault("E0721", f'the URI "{readable(uri)}" is not allowed: {why}', help=help)


def _in_package(uri: str, rest: str) -> Path:
    name, _, inner = rest.partition("/")
    if not name.isidentifier() or not inner:
        raise _refused(uri, "it needs an import name and a path: `package:import_name/file`")
    try:
        spec = importlib.util.find_spec(name)  # a top-level name: its code is not run
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise fault(
            "E0722",
            f"the package `{name}` is not installed",
            help=f"install it: `pip install {name.replace('_', '-')}` (add `--no-deps` for its "
            f"files alone)",
        )
    for place in spec.submodule_search_locations:
        home = Path(place).resolve()
        path = (home / inner).resolve()
        if not path.is_relative_to(home):
            raise _refused(uri, "its path leaves the package")
        if path.exists():
            return path
    raise fault(
        "E0722",
        f"the package `{name}` has no file `{readable(inner)}`",
        help=_offer_files(spec.submodule_search_locations),
    )


def _offer_files(places: Iterable[str]) -> str:
    """The first files of weights or data that lie in a package's folder."""
    suffixes = (".gguf", ".jsonl", ".csv", ".txt")
    names = sorted({p.name for place in places for p in Path(place).glob("*.*")})
    known = [f"`{readable(name)}`" for name in names if name.endswith(suffixes)][:4]
    return f"it has {', '.join(known)}" if known else "look where the package keeps its files"


def _in_hub_cache(uri: str, rest: str, revision: str | None) -> Located | None:
    """The snapshot in the cache; the network is never asked here (``recipe fetch`` does that)."""
    if not HUB_NAME.fullmatch(rest) or "--" in rest or ".." in rest:
        raise _refused(uri, "a repository of the hub is `hf:org/name`")
    cache = hub_cache()
    repository = cache / ("models--" + rest.replace("/", "--"))
    commit = revision or "main"
    reference = repository / "refs" / commit
    if reference.is_file():
        commit = reference.read_text().strip()
    snapshot = repository / "snapshots" / commit
    held = any((snapshot / name).exists() for name in ("config.json", "adapter_config.json"))
    if "/" not in commit and held:
        return Located(uri, snapshot, commit)
    return None


def hub_cache() -> Path:
    """The Hugging Face cache of this machine, by its documented variables."""
    import os

    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return Path(given)
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home) / "hub"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "huggingface" / "hub"


def fetch(
    uri: str, revision: str | None = None, *, token: str | None = None, metadata: bool = False
) -> Located:
    """Download an ``hf:`` source into the machine's cache. ``metadata`` leaves the weights out.

    Raises RecipeError E0723 without the ``hub`` extra, without a network or without such a
    repository.
    """
    refuse_unsafe(uri, revision)
    name = uri.removeprefix("hf:")
    if not uri.startswith("hf:") or not HUB_NAME.fullmatch(name):
        raise _refused(uri, "only `hf:org/name` is fetched")
    try:
        from huggingface_hub import (
            snapshot_download,  # pyright: ignore[reportUnknownVariableType]
        )
    except ImportError:
        raise fault(
            "E0723", f"`{uri}` needs the package `huggingface_hub`",
            help="install it: `pip install 'recipelang[hub]'`",
        ) from None  # fmt: skip
    small = ["*.json", "*.jinja", "*.txt", "tokenizer.model"]
    patterns = small if metadata else [*small, "*.safetensors"]
    try:
        path = snapshot_download(name, revision=revision, token=token, allow_patterns=patterns)
    except Exception as error:  # the client raises errors of several libraries
        reason = readable(
            str(error).strip().splitlines()[0] if str(error) else type(error).__name__, 200
        )
        raise fault(
            "E0723",
            f"cannot fetch `{uri}`: {reason}",
            help="look at the name, the commit and the network; a private repository needs "
            '`token = secret("HF_TOKEN")`',
        ) from None
    return Located(uri, Path(path), Path(path).name)

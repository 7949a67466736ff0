"""Write a working starter recipe with its data.

recipe new greetings
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

__all__ = ["add_arguments", "run", "starter"]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

END = "<|endoftext|>"

RECIPE = """\
language 1

# A tiny model learns to complete proverbs, then a second one; their merge keeps something of both.
param steps: Steps = 100

defaults {{
    steps = steps
    batch = 4
    lr = 1e-2
}}

words = tokenizer "{name}-data/tokenizer"
blank = init "llama" with words {{
    hidden = 32
    layers = 2
    heads = 2
    context = 64
}}
proverbs = dataset "{name}-data/proverbs.txt" {{ length = 48 }}
riddles = dataset "{name}-data/riddles.jsonl" {{ length = 48 }}

wise = finetune blank on proverbs
curious = finetune blank on riddles
both =
    wise
    -> linear-merge with curious

scores = evaluate [blank, wise, curious, both] on proverbs and riddles {{
    metrics = [bits-per-byte]
    samples = ["A stitch in"]
    sample_length = 12
}}

expect perplexity of wise on proverbs <= 0.9 * (perplexity of blank on proverbs)

publish both to "out/{name}"
"""

PROVERBS = (
    "A stitch in time saves nine.", "A rolling stone gathers no moss.", "Still waters run deep.",
    "The early bird catches the worm.", "Many hands make light work.", "Look before you leap.",
    "Practice makes perfect.", "A watched pot never boils.", "Better late than never.",
    "All that glitters is not gold.", "Actions speak louder than words.", "No smoke without fire.",
    "Strike while the iron is hot.", "The pen is mightier than the sword.", "Time will tell.",
    "Where there is a will, there is a way.",
)  # fmt: skip
RIDDLES = (
    ("What has keys and opens no door?", "A piano."),
    ("What has hands and cannot clap?", "A clock."),
    ("What gets wetter as it dries?", "A towel."), ("What has a neck and no head?", "A bottle."),
    ("What goes up and never comes down?", "Your age."),
    ("What has teeth and cannot bite?", "A comb."),
    ("What has one eye and cannot see?", "A needle."), ("What runs and has no legs?", "Water."),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("name", metavar="NAME", help="letters, digits, - and _")


def run(args: argparse.Namespace) -> int:
    """Write ``NAME.recipe`` and ``NAME-data/``; nothing that exists is touched."""
    name = str(args.name).removesuffix(".recipe")
    if not NAME.fullmatch(name):
        print(
            f"error: `{name}` cannot name a recipe\n   = help: use letters, digits, `-` and `_`",
            file=sys.stderr,
        )
        return 1
    files = starter(name)
    there = [path for path in files if Path(path).exists()]
    if there:
        print(
            f"error: `{there[0]}` exists already\n   = help: choose another name", file=sys.stderr
        )
        return 1
    for path, text in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
    print(f"wrote {name}.recipe and {name}-data/\nnext  recipe run {name}.recipe")
    return 0


def starter(name: str) -> dict[str, str]:
    """Path -> text of every file of a starter recipe."""
    import json

    rows = "".join(json.dumps({"prompt": q, "completion": " " + a}) + "\n" for q, a in RIDDLES)
    config = {"eos_token": END, "tokenizer_class": "PreTrainedTokenizerFast"}
    return {
        f"{name}.recipe": RECIPE.format(name=name),
        f"{name}-data/proverbs.txt": "\n".join(PROVERBS) + "\n",
        f"{name}-data/riddles.jsonl": rows,
        f"{name}-data/tokenizer/tokenizer.json": _tokenizer(),
        f"{name}-data/tokenizer/tokenizer_config.json": json.dumps(config, indent=1) + "\n",
    }


def _tokenizer() -> str:
    """A tokenizer of bytes, as byte-level BPE without merges: 256 characters and an end token."""
    import json

    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shown = {b: chr(b) for b in plain}
    for i, byte in enumerate(b for b in range(256) if b not in shown):
        shown[byte] = chr(256 + i)
    vocabulary = {END: 0} | {shown[b]: b + 1 for b in range(256)}
    end = {
        "id": 0, "content": END, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": True,
    }  # fmt: skip
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    model: dict[str, object] = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": False, "vocab": vocabulary, "merges": [],
    }  # fmt: skip
    document: dict[str, object] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [end],
        "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": model,
    }  # fmt: skip
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"

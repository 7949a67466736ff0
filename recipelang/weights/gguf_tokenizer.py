"""The ``tokenizer.json`` that a GGUF file's tokenizer fields amount to.

Byte-level BPE (``gpt2``) with the pre-tokenizers below, and SentencePiece-like BPE (``llama``),
whose merges follow from the scores: two pieces merge into the one with the best score.

Example:
    >>> files = tokenizer_files(read_gguf(Path("model.gguf")))      # doctest: +SKIP
    >>> sorted(files)                                               # doctest: +SKIP
    ['chat_template.jinja', 'tokenizer.json', 'tokenizer_config.json']
"""

from __future__ import annotations

import json

from recipelang.diagnostics import RecipeError, fault
from recipelang.weights.gguf_header import GgufHeader
from recipelang.weights.strict_json import as_list, readable

__all__ = ["chat_template", "tokenizer_files", "tokens"]

CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
BYTES: dict[str, object] = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}
DIGITS: dict[str, object] = {"type": "Digits", "individual_digits": True}


def _split(pattern: str) -> dict[str, object]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


PRE_TOKENIZERS: dict[str, list[dict[str, object]]] = {
    "gpt-2": [BYTES | {"use_regex": True}],
    "smollm": [DIGITS, BYTES | {"use_regex": True}],
    "qwen2": [_split(f"(?i:{CONTRACTIONS})|" + WORDS % ""), BYTES],
    "llama-bpe": [_split(f"(?i:{CONTRACTIONS})|" + WORDS % "{1,3}"), BYTES],
    "default": [
        _split(r"[\p{P}\$\+<=>\^~\|]+"),
        _split(GPT2),
        _split(r"\p{N}+"),
        _split("[0-9][0-9][0-9]"),
        BYTES,
    ],
}
"""By ``tokenizer.ggml.pre``: how llama.cpp cuts a text before merging (llama-vocab.cpp)."""
ALIASES = {
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "smaug-bpe": "llama-bpe",
    "dbrx": "llama-bpe",
    "deepseek-r1-qwen": "qwen2",
    "mpt": "gpt-2",
    "olmo": "gpt-2",
    "phi-2": "gpt-2",
    "jina-es": "gpt-2",
    "starcoder": "smollm",
    "refact": "smollm",
    "codeshell": "smollm",
    "command-r": "smollm",
}
CONTROL, USER_DEFINED, UNKNOWN = 3, 4, 2


def tokens(header: GgufHeader) -> list[str]:
    """The tokens in order of their ids."""
    found = as_list(header.value("tokenizer.ggml.tokens"))
    if found is None or not all(isinstance(t, str) for t in found):
        raise fault("E0730", f"`{header.path}` has no `tokenizer.ggml.tokens`")
    return [str(t) for t in found]


def chat_template(header: GgufHeader) -> str | None:
    """The chat template (Jinja), if the file has one."""
    template = header.value("tokenizer.chat_template")
    return template if isinstance(template, str) else None


def tokenizer_files(header: GgufHeader) -> dict[str, bytes]:
    """Tokenizer files in Hugging Face form. Raises RecipeError E0731 for a tokenizer that is not
    known."""
    words = tokens(header)
    kinds = _kinds(header, len(words))
    model = header.value("tokenizer.ggml.model")
    if model == "gpt2":
        parts = _byte_level(header, words)
    elif model == "llama":
        parts = _sentence_piece(header, words, kinds)
    else:
        raise _unknown(header, f"the tokenizer model `{model}`")
    document: dict[str, object] = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": _added(words, kinds), **parts,
    }  # fmt: skip
    template = chat_template(header)
    files = {
        "tokenizer.json": json.dumps(document, ensure_ascii=False).encode(),
        "tokenizer_config.json": _tokenizer_config(header, words, template),
    }
    return files | ({"chat_template.jinja": template.encode()} if template else {})


def _kinds(header: GgufHeader, count: int) -> list[int]:
    kinds = as_list(header.value("tokenizer.ggml.token_type", [1] * count))
    if kinds is None or len(kinds) != count:
        raise fault(
            "E0730", f"`{header.path}`: `tokenizer.ggml.token_type` does not fit the tokens"
        )
    return [kind if isinstance(kind, int) else 0 for kind in kinds]


def _added(words: list[str], kinds: list[int]) -> list[dict[str, object]]:
    return [
        {
            "id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": kind in (CONTROL, UNKNOWN),
        }
        for i, (word, kind) in enumerate(zip(words, kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED, UNKNOWN)
    ]  # fmt: skip


def _byte_level(header: GgufHeader, words: list[str]) -> dict[str, object]:
    written = header.value("tokenizer.ggml.pre", "default")
    pre = ALIASES.get(str(written), str(written))
    if pre not in PRE_TOKENIZERS:
        raise _unknown(header, f"the pre-tokenizer `{written}`")
    merges = as_list(header.value("tokenizer.ggml.merges"))
    if merges is None or any(str(m).count(" ") != 1 for m in merges):
        raise fault("E0730", f"`{header.path}`: `tokenizer.ggml.merges` is missing or not pairs")
    steps = PRE_TOKENIZERS[pre]
    return {
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}
        if len(steps) > 1
        else steps[0],
        "post_processor": _post_processor(header, words) or BYTES | {"trim_offsets": False},
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == "llama-bpe",
            "vocab": {word: i for i, word in enumerate(words)},
            "merges": [str(pair).split(" ") for pair in merges],
        },
    }


def _sentence_piece(header: GgufHeader, words: list[str], kinds: list[int]) -> dict[str, object]:
    written = as_list(header.value("tokenizer.ggml.scores")) or []
    scores = [score for score in written if isinstance(score, float)]
    if len(scores) != len(words):
        raise fault("E0730", f"`{header.path}`: `tokenizer.ggml.scores` does not fit the tokens")
    ids = {word: i for i, word in enumerate(words)}
    found: list[tuple[float, int, int, int, str, str]] = []
    for i, (word, kind) in enumerate(zip(words, kinds, strict=True)):
        if kind != 1:
            continue
        for cut in range(1, len(word)):
            left, right = word[:cut], word[cut:]
            if left in ids and right in ids:
                found.append((-scores[i], i, ids[left], ids[right], left, right))
    found.sort(key=lambda row: row[:4])
    unknown = next((w for w, kind in zip(words, kinds, strict=True) if kind == UNKNOWN), None)
    prefix = bool(header.value("tokenizer.ggml.add_space_prefix", True))
    normal: list[dict[str, object]] = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    normal.append({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    decode: list[dict[str, object]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]  # fmt: skip
    if prefix:
        decode.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": normal},
        "pre_tokenizer": None,
        "post_processor": _post_processor(header, words, bos_default=True),
        "decoder": {"type": "Sequence", "decoders": decode},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": ids,
            "merges": [[row[4], row[5]] for row in found],
        },
    }


def _token(header: GgufHeader, words: list[str], role: str) -> tuple[str, int] | None:
    i = header.value(f"tokenizer.ggml.{role}_token_id")
    return (words[i], i) if isinstance(i, int) and 0 <= i < len(words) else None


def _post_processor(
    header: GgufHeader, words: list[str], bos_default: bool = False
) -> dict[str, object] | None:
    """Puts the tokens of beginning and end around a text, where the file asks for them."""
    around = [
        _token(header, words, role)
        if header.value(f"tokenizer.ggml.add_{role}_token", default)
        else None
        for role, default in (("bos", bos_default), ("eos", False))
    ]
    if around == [None, None]:
        return None

    def special(place: tuple[str, int] | None, kind: int) -> list[dict[str, object]]:
        return [{"SpecialToken": {"id": place[0], "type_id": kind}}] if place else []

    def text(name: str, kind: int) -> list[dict[str, object]]:
        row: list[dict[str, object]] = [{"Sequence": {"id": name, "type_id": kind}}]
        return [*special(around[0], kind), *row, *special(around[1], kind)]

    return {
        "type": "TemplateProcessing",
        "single": text("A", 0),
        "pair": text("A", 0) + text("B", 1),
        "special_tokens": {
            p[0]: {"id": p[0], "ids": [p[1]], "tokens": [p[0]]} for p in around if p
        },
    }


def _tokenizer_config(header: GgufHeader, words: list[str], template: str | None) -> bytes:
    config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
        "model_max_length": header.value(f"{header.value('general.architecture')}.context_length"),
    }  # fmt: skip
    for name, role in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        place = _token(header, words, role)
        if place:
            config[f"{name}_token"] = place[0]
    if template:
        config["chat_template"] = template
    return json.dumps(config, ensure_ascii=False, indent=2).encode()


def _unknown(header: GgufHeader, what: str) -> RecipeError:
    return fault(
        "E0731", f"`{header.path}` has {readable(what, 200)}, which is not read from GGUF",
        help="use the safetensors folder of the same model",
    )  # fmt: skip

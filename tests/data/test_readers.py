"""Files of rows: read strictly, and refused by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.data.readers import MAX_DEPTH, read_rows
from recipelang.data.source import content, inspect, load
from recipelang.diagnostics import RecipeError
from recipelang.ops.spec import Fault
from recipelang.values import Quantity


def write(folder: Path, name: str, data: bytes | str) -> Path:
    """A file with these bytes."""
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


ROW = '{"text": "a"}\n'
BAD_LINES = {
    "list": "[1]",
    "number": "3",
    "null": "null",
    "cut": '{"text": "a"',
    "two": '{"text": "a"} {"text": "b"}',
    "duplicate": '{"text": "a", "text": "b"}',
    "nan": '{"text": NaN}',
    "nul": '{"text": "\\u0000"}',
    "surrogate": '{"text": "\\ud800"}',
    "surrogate in a list": '{"text": ["\\udfff"]}',
    "surrogate deeper": '{"text": [["\\udfff"]]}',
    "nul deeper": '{"text": [["a\\u0000"]]}',
    "deep": '{"text": ' + "[" * (MAX_DEPTH + 5) + "]" * (MAX_DEPTH + 5) + "}",
    "very deep": '{"text": ' + "[" * 200_000 + "]" * 200_000 + "}",
    "long number": '{"text": ' + "9" * 10_000 + "}",
    "python": "{'text': 'a'}",
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_bad_json_lines_are_named(tmp_path: Path, case: str) -> None:
    """Whatever is wrong with a line, the fault is E0773 with file and line, and no traceback."""
    path = write(tmp_path, "a.jsonl", ROW + "\n" + BAD_LINES[case] + "\n")
    with pytest.raises(RecipeError, match=r"E0773: `.*a\.jsonl:3`"):
        list(read_rows(path))


BAD_BYTES = {
    "latin": b'{"text": "\xe9"}\n',
    "nul": b'{"text": "a\0"}\n',
    "utf-16": '{"text": "a"}'.encode("utf-16"),
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("case", BAD_BYTES)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "txt"])
def test_bad_bytes_are_named(tmp_path: Path, case: str, suffix: str) -> None:
    """Bytes that are no UTF-8 text are refused in every format."""
    with pytest.raises(RecipeError, match="E0773"):
        list(read_rows(write(tmp_path, f"a.{suffix}", BAD_BYTES[case])))


def test_long_lines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line has a limit, so that a file without line breaks does not fill the memory."""
    monkeypatch.setattr("recipelang.data.readers.MAX_LINE", 100)
    with pytest.raises(RecipeError, match=r"E0773: `.*:1`: the line is longer"):
        list(read_rows(write(tmp_path, "a.txt", "x" * 101)))


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """A UTF-8 mark at the start is no part of the first row."""
    for name, text in (("a.jsonl", ROW), ("a.csv", "text\na\n"), ("a.txt", "a\n")):
        rows = list(read_rows(write(tmp_path, name, b"\xef\xbb\xbf" + text.encode())))
        assert [row.values for row in rows] == [{"text": "a"}]


def test_csv_cells(tmp_path: Path) -> None:
    """Quoted cells hold commas and line breaks; a row knows the line that it starts on."""
    rows = list(
        read_rows(write(tmp_path, "a.csv", 'prompt,completion\r\n"a, b\nc",d\r\n\r\ne,f\r\n'))
    )
    assert [(row.line, row.values["prompt"]) for row in rows] == [(2, "a, b\nc"), (5, "e")]


@pytest.mark.parametrize("text", ["a,b\n1\n", "a,a\n1,2\n", "a,\n1,2\n", 'a\n"x"y\n', 'a\n"x\n'])
def test_bad_csv_is_named(tmp_path: Path, text: str) -> None:
    """Rows of another width, columns of one name, and broken quotes are refused."""
    with pytest.raises(RecipeError, match="E0773"):
        list(read_rows(write(tmp_path, "a.csv", text)))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=5)
)
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """Every text that UTF-8 holds comes back as it was."""
    data = "".join(json.dumps({"text": t}, ensure_ascii=len(t) % 2 == 0) + "\n" for t in texts)
    path = write(tmp_path_factory.mktemp("rows"), "a.jsonl", data)
    assert [row.values["text"] for row in read_rows(path)] == texts


def test_escaped_backslashes_are_no_nul(tmp_path: Path) -> None:
    """The text backslash, u, 0000 is a text like any other."""
    path = write(tmp_path, "a.jsonl", json.dumps({"text": "\\u0000 é"}) + "\n")
    assert [row.values["text"] for row in read_rows(path)] == ["\\u0000 é"]


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    """A file that is not there, a folder, and a kind that is not read are faults of band E07."""
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("none.jsonl", "folder.jsonl", "a.parquet"):
        if name == "a.parquet":
            write(tmp_path, name, "x")
        with pytest.raises(RecipeError, match="E07"):
            inspect({"uri": str(tmp_path / name)})


@pytest.mark.parametrize("data", ["", "\n\n", "\ufeff"])
def test_empty_files(tmp_path: Path, data: str) -> None:
    """A file without rows is refused when the recipe is checked."""
    with pytest.raises(RecipeError, match="E0774"):
        inspect({"uri": str(write(tmp_path, "a.jsonl", data))})


FORMATS = [
    ({"text": "x"}, {}, "text"),
    ({"prompt": "x", "completion": "y"}, {}, "prompt-completion"),
    ({"messages": [{"role": "user", "content": "x"}]}, {}, "chat"),
    ({"body": "x"}, {"text": "body"}, "text"),
    ({"q": "x", "a": "y"}, {"prompt": "q", "completion": "a"}, "prompt-completion"),
    ({"text": "x", "prompt": "p", "completion": "c"}, {"format": "text"}, "text"),
]


@pytest.mark.parametrize(("row", "fields", "format"), FORMATS)
def test_format_follows_from_columns(
    tmp_path: Path, row: dict[str, object], fields: dict[str, object], format: str
) -> None:
    """The columns tell the format; fields rename them; rows come by the format's own names."""
    given = {**fields, "uri": str(write(tmp_path, "a.jsonl", json.dumps(row) + "\n"))}
    assert inspect(given).format == format
    assert load(given)[0] == format
    assert inspect(given).columns == tuple(row)


COLUMN_FAULTS = [
    ({"question": "x"}, {}, "E0776", "uri"),
    ({"text": "x", "prompt": "p", "completion": "c"}, {}, "E0776", "uri"),
    ({"text": "x"}, {"text": "body"}, "E0775", "text"),
    ({"text": "x"}, {"format": "chat"}, "E0775", "uri"),
    ({"text": "x"}, {"format": "text", "prompt": "text"}, "E0776", "prompt"),
    ({"text": "x"}, {"template": "none.jinja"}, "E0779", "template"),
]


@pytest.mark.parametrize(("row", "fields", "code", "at"), COLUMN_FAULTS)
def test_column_faults_name_what_is_there(
    tmp_path: Path, row: dict[str, object], fields: dict[str, object], code: str, at: str
) -> None:
    """A missing column, or a format that cannot be told, points at the field, lists the columns."""
    with pytest.raises(Fault) as found:
        inspect({**fields, "uri": str(write(tmp_path, "a.jsonl", json.dumps(row) + "\n"))})
    assert (found.value.code, found.value.at) == (code, at)
    if code == "E0775":
        assert all(f"`{column}`" in found.value.help for column in row)


ROW_FAULTS = [
    {"text": 3},
    {"text": None},
    {"other": "x"},
    {"messages": []},
    {"messages": "hi"},
    {"messages": ["hi"]},
    {"messages": [{"role": "asistant", "content": "x"}]},
    {"messages": [{"role": "user", "content": ["x"]}]},
]


@pytest.mark.parametrize("row", ROW_FAULTS)
def test_wrong_rows_are_named(tmp_path: Path, row: dict[str, object]) -> None:
    """A value of another type is named by row and field, also beyond what `check` reads."""
    column = "messages" if "messages" in row else "text"
    good: dict[str, object] = {"text": "x"}
    if column == "messages":
        good = {"messages": [{"role": "user", "content": "x"}]}
    lines = [json.dumps(good)] * 2 + [json.dumps(row)]
    given = {"uri": str(write(tmp_path, "a.jsonl", "\n".join(lines)))}
    with pytest.raises(RecipeError, match=rf"E0777: `.*a\.jsonl:3`: .*`{column}"):
        load(given)


def test_check_reads_a_thousand_rows(tmp_path: Path) -> None:
    """A fault in row 1,001 is found when all rows are read, not before."""
    path = write(tmp_path, "a.jsonl", ROW * 1000 + '{"text": 1}\n')
    found = inspect({"uri": str(path)})
    assert (found.rows, found.format) == (None, "text")
    with pytest.raises(RecipeError, match="E0777"):
        load({"uri": str(path)})


def test_sizes_are_known_before_a_run(tmp_path: Path) -> None:
    """Rows after `join` and `take`, and the limit in tokens, are part of the type."""
    uri = str(write(tmp_path, "a.txt", "a\n\nb\nc\nd\ne\n"))
    assert inspect({"uri": uri}).rows == 5
    assert inspect({"uri": uri, "join": 2}).rows == 3
    assert inspect({"uri": uri, "take": Quantity(2, "examples")}).rows == 2
    assert inspect({"uri": uri, "take": Quantity(9, "tokens")}).take_tokens == 9
    assert load({"uri": uri, "join": 2})[1] == [{"text": "a\nb"}, {"text": "c\nd"}, {"text": "e"}]


def test_content_is_the_bytes(tmp_path: Path) -> None:
    """The content digest follows the bytes of file and template, not their names."""
    one, two = write(tmp_path, "a.txt", "a\n"), write(tmp_path, "b.txt", "a\n")
    other = write(tmp_path, "c.txt", "b\n")
    assert content({"uri": str(one)}) == content({"uri": str(two)})
    assert content({"uri": str(one)}) != content({"uri": str(other)})
    template = write(tmp_path, "t.jinja", "x")
    assert content({"uri": str(one), "template": str(template)}) != content({"uri": str(one)})

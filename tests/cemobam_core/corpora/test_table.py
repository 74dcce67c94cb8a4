"""The one reader of tables: CSV of any delimiter, and JSONL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cemobam_core.corpora import table
from cemobam_core.corpora.table import Layout, Row, check_labels, read_json_lines, read_table
from cemobam_core.errors import InputError

LAYOUT = Layout(required=("audio", "label"), optional=("text",), aliases={"audio_file": "audio", "raw_text": "text"})


def rows(path: Path, content: str | bytes, layout: Layout = LAYOUT) -> list[Row]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list((read_json_lines if path.suffix == ".jsonl" else read_table)(path, layout))


def shortened(value: object) -> str:
    """Return the name of a case: its content may be megabytes."""
    return f"{value!r:.40}"


def values(path: Path, content: str | bytes) -> list[dict[str, object]]:
    return [dict(row.values) for row in rows(path, content)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_delimiter_and_the_line_ends_are_found(tmp_path: Path, delimiter: str, end: str, mark: str) -> None:
    lines = ["Label,note, TEXT ,Audio", 'x,1,"one, two; three\tfour",a.wav', ",,,", "", "y,2,you,b.wav"]
    content = mark + end.join(line.replace(",", delimiter) if '"' not in line else line for line in lines)
    content = content.replace('x,1,"one, two; three\tfour",a.wav', delimiter.join(["x", "1", '"a, b; c\td"', "a.wav"]))
    assert values(tmp_path / "t.csv", content) == [
        {"label": "x", "text": "a, b; c\td", "audio": "a.wav"},
        {"label": "y", "text": "you", "audio": "b.wav"},
    ]
    assert [row.line for row in rows(tmp_path / "t.csv", content)] == [2, 5]


def test_a_quoted_header_and_a_text_full_of_other_delimiters(tmp_path: Path) -> None:
    content = '"audio";"label";"text, of a, b, c"\na.wav;x;"1,2,3"\n'
    assert values(tmp_path / "t.csv", content) == [{"audio": "a.wav", "label": "x"}]


def test_a_value_over_lines_counts_all_of_them(tmp_path: Path) -> None:
    found = rows(tmp_path / "t.csv", 'audio,label,text\na,x,"one\ntwo"\nb,y,z\n')
    assert [(row.line, row.text("text")) for row in found] == [(3, "one two"), (4, "z")]
    assert str(found[1].error("is odd")) == f"{tmp_path / 't.csv'} line 4: is odd"


def test_our_name_takes_precedence_over_an_alias(tmp_path: Path) -> None:
    assert values(tmp_path / "t.csv", "audio_file,label,audio\na,x,b\n") == [{"audio": "b", "label": "x"}]
    assert values(tmp_path / "t.csv", "audio_file,raw_text,label\na,A,x\n") == [
        {"audio": "a", "text": "A", "label": "x"}
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", " line 1: no column 'audio'; it has nothing; required are audio, label, optional are text"),
        ("\naudio,label\n", " line 1: no column 'audio'; it has nothing"),
        ("audio,text\n", " line 1: no column 'label'; it has 'audio', 'text'"),
        ("audio,label,Label\n", " line 1: several columns 'label'; keep one of them"),
        (
            "audio,label\na,x,y\n",
            " line 2: 3 values for 2 columns; give one for each, and put a value that contains ','",
        ),
        ('audio,label\na,"x\n', " line 2: cannot be read as CSV (unexpected end of data); fix the quotes"),
        ('audio,label\na,"x"y\n', " line 2: cannot be read as CSV (',' expected after '\"'); fix the quotes"),
        (b"audio,label\na,\xff\n", ": not UTF-8 (byte 14); save it in UTF-8"),
        (b"audio,label\na,\xed\xa0\x80\n", ": not UTF-8 (byte 14)"),
        ("audio,label\n".encode("utf-16"), ": not UTF-8 (byte 0)"),
        ("audio,label\n".encode("utf-16-le"), " line 1: no column 'audio'; it has 'a\\x00u\\x00d\\x00i\\x00o\\x00'"),
        ("audio,label" + "," * 1_000 + "\n", " line 1: has 1002 columns; give at most 1000"),
        ("audio,label" + "," * 10**6 + "\n", " line 1: a row of more than 1000000 letters"),
        ("audio,label\n" + 'a,"\n",' * 10**6, " line 166669: a row of more than 1000000 letters"),
        ("audio,label\na," + "x" * 200_000, " line 2: cannot be read as CSV (field larger than field limit (131072))"),
    ],
    ids=shortened,
)
def test_a_table_with_a_mistake(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = tmp_path / "t.csv"
    with pytest.raises(InputError) as raised:
        rows(path, content)
    assert str(raised.value).startswith(f"{path}{said}")


def line(**entry: object) -> str:
    return json.dumps(entry) + "\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, " line 1: not JSON (maximum recursion depth"),
        ('{"a":' * 100_000, " line 1: not JSON (maximum recursion depth"),
        ('{"audio": ' + "1" * 5_000 + "}", " line 1: not JSON (Exceeds the limit"),
        ("\n[1]\n", " line 2: '[1]' is not an object; write {\"audio\": …}, one a line"),
        ("nul\n", " line 1: not JSON"),
        (line(audio="a", label="x") + line(audio="b"), " line 2: no column 'label'; it has 'audio'; required are"),
        (line(audio="a", label="x", LABEL="y"), " line 1: several columns 'label'"),
        (line(audio="a", label="x", **{f"c{i}": 0 for i in range(1_000)}), " line 1: has 1002 columns"),
        ("[" + "[]," * 400_000 + "[]]", " line 1: a row of more than 1000000 letters"),
    ],
    ids=shortened,
)
def test_a_jsonl_with_a_mistake(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "t.jsonl"
    with pytest.raises(InputError) as raised:
        rows(path, content)
    assert str(raised.value).startswith(f"{path}{said}")


def test_jsonl_gives_its_values_as_they_are(tmp_path: Path) -> None:
    content = line(audio="a", label=3, extra=[1]) + "\n" + line(label=None, raw_text="\u2028", AUDIO="b")
    assert values(tmp_path / "t.jsonl", content) == [
        {"audio": "a", "label": 3},
        {"audio": "b", "label": None, "text": "\u2028"},
    ]
    assert [row.line for row in rows(tmp_path / "t.jsonl", content)] == [1, 3]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_number_of_rows_is_limited(tmp_path: Path, suffix: str) -> None:
    few = Layout(required=("audio",), most_rows=2)
    header, one = ("audio\n", "a\n") if suffix == ".csv" else ("", line(audio="a"))
    assert len(rows(tmp_path / f"t{suffix}", header + 2 * one, few)) == 2
    with pytest.raises(InputError, match="has more than 2 rows; give fewer at once"):
        rows(tmp_path / f"t{suffix}", header + 3 * one, few)
    with pytest.raises(InputError, match="has more than 2 rows; give fewer at once"):
        rows(tmp_path / f"t{suffix}", header + 3 * "\n", few)


def row(value: object) -> Row:
    return Row(file=Path("t.csv"), line=7, values={"id": value})


@pytest.mark.parametrize(
    ("value", "text", "word"),
    [(" a  b ", "a b", "a  b"), (None, "", ""), (12, "12", "12"), (10**4_000, "1" + "0" * 4_000, "1" + "0" * 4_000)],
    ids=shortened,
)
def test_a_value_as_text_and_as_a_word(value: object, text: str, word: str) -> None:
    assert (row(value).text("id"), row(value).word("id")) == (text, word)
    assert row(value).word("speaker") == ""


@pytest.mark.parametrize("value", [True, 1.5, float("nan"), [], {}, [["x"] * 1000]])
@pytest.mark.parametrize("how", ["text", "word", "label"])
def test_only_strings_and_integers_are_values(value: object, how: str) -> None:
    with pytest.raises(InputError, match=r"t.csv line 7: id is .*; it must be a string or an integer"):
        getattr(row(value), how)("id")


@pytest.mark.parametrize(
    ("how", "value", "said"),
    [
        ("text", "x" * 100_001, "t.csv line 7: id has 100001 letters; give at most 100000"),
        ("text", "\ud800", "t.csv line 7: id contains half a character (a lone surrogate); correct it"),
        ("word", "x" * 5_001, f"t.csv line 7: id '{'x' * 59}… has 5001 letters; give at most 5000"),
        ("word", "a\nb", r"t.csv line 7: id 'a\nb' contains a character that cannot be printed; correct it"),
        ("word", "\x1b[2J", r"t.csv line 7: id '\x1b[2J' contains a character"),
        ("word", "\ud800", r"t.csv line 7: id '\ud800' contains a character"),
        ("word", "\u202egpj", r"t.csv line 7: id '\u202egpj' contains a character"),
        ("label", "x" * 101, f"t.csv line 7: id '{'x' * 59}… has 101 letters; give at most 100"),
    ],
    ids=shortened,
)
def test_a_value_that_is_refused(how: str, value: str, said: str) -> None:
    with pytest.raises(InputError) as raised:
        getattr(row(value), how)("id")
    assert str(raised.value).startswith(said)


def test_too_many_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MOST_LABELS", 2)
    check_labels(Path("t.csv"), ["a", "b"])
    with pytest.raises(InputError, match=r"t.csv: has 3 different labels \('a', 'b' …\); give at most 2"):
        check_labels(Path("t.csv"), ["a", "b", "c"])


@given(content=st.text(st.sampled_from('audiolbe,;\t\n\r"x\0 '), max_size=80))
def test_whatever_is_in_it_is_rows_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    for suffix in (".csv", ".jsonl"):
        path = tmp_path_factory.mktemp("any") / f"t{suffix}"
        try:
            for one in rows(path, f"audio,label\n{content}"):
                assert set(one.values) == {"audio", "label"}
        except InputError as error:
            assert str(error).startswith(str(path))

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from own_systems import GRU

from cemobam_core import InputError
from study.design.design import Design
from study.design.factors import Pair
from study.design.study_file import load_study
from study.papers.cemobam import paper

HEAD = "from study import Block, Factor, papers\n"


def write(text: str, name: str = "mine_study.py") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + textwrap.dedent(text))
    return path


def refused(text: str) -> str:
    with pytest.raises(InputError) as error:
        load_study(write(text))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_it_lists_the_papers_blocks_and_its_own(in_folder: Path) -> None:
    path = write("""
        blocks = [
            *papers.cemobam.blocks,
            Block("width", question="How wide must it be?", factors=[Factor("hidden_dim", [128, 256])]),
            Block("systems", systems=["cemobam", "concat_mlp"], reference="cemobam"),
        ]
    """)
    blocks = load_study(path)
    assert [block.name for block in blocks] == ["grid", "fusion", "ablation", "width", "systems"]
    assert blocks[:3] == paper.blocks
    assert all(one.make_table is other.make_table for one, other in zip(blocks, paper.blocks, strict=False))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nblocks = [", "mine_study.py, line 3: '[' was never closed"),
        ("def f():\npass", "mine_study.py, line 3: expected an indented block after function definition on line 2"),
        ("x = 1\ny = 1 / 0\nblocks = []", "mine_study.py, line 3: ZeroDivisionError: division by zero"),
        ("def f():\n    raise ValueError('a\\nb')\nf()", "mine_study.py, line 3: ValueError: a b"),
        ("assert False", "mine_study.py, line 2: AssertionError"),
        ("import no_such_module", "mine_study.py, line 2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise ValueError('x' * 10_000)", f"mine_study.py, line 2: ValueError: {'x' * 300}"),
        (
            'blocks = [\n    Block("a", factors=[Factor("lr", [1])]),\n    Block("b", factors=[Factor("lr", [])]),\n]',
            "mine_study.py, line 4: factor lr: give it at least one value",
        ),
        (
            'blocks = [Block("a b", factors=[Factor("lr", [1])])]',
            "mine_study.py, line 2: block 'a b': a block's name must",
        ),
        ("", "mine_study.py: the file defines no blocks; write: blocks = [Block(...), ...]"),
        ("blocks = []", "mine_study.py: the file defines no blocks"),
        ('blocks = Block("a", factors=[Factor("lr", [1])])', "mine_study.py: the file defines no blocks"),
        ("blocks = ['grid']", "mine_study.py: 'grid' in blocks is not a Block"),
        ("blocks = [papers.cemobam.blocks]", "in blocks is not a Block"),
        ("blocks = 2 * papers.cemobam.blocks[:1]", "mine_study.py: two blocks are called 'grid'; give each block"),
        (
            "from dataclasses import replace\ngrid = papers.cemobam.blocks[0]\nblocks = [grid, replace(grid, name='b')]",  # noqa: E501
            "mine_study.py: several blocks choose the pair of K; set chooses=True in one",
        ),
        ("raise SystemExit(3)", "mine_study.py: the file ends the program; a study file must only define blocks"),
        ("import sys\nsys.exit()", "mine_study.py: the file ends the program"),
    ],
)
def test_a_mistake_is_told_with_its_line(in_folder: Path, text: str, said: str) -> None:
    assert said in refused(text)
    assert len(refused(text)) < 400


def test_what_is_no_file_or_no_text_is_told(in_folder: Path) -> None:
    for path in (Path("nowhere.py"), in_folder):
        with pytest.raises(InputError, match=r"--study .*: there is no such file"):
            load_study(path)
    for content in (b"\xff\xfe", b"x = 1\0\n"):
        Path("odd.py").write_bytes(content)
        with pytest.raises(InputError, match=r"^odd\.py") as error:
            load_study(Path("odd.py"))
        assert "line None" not in str(error.value)


def test_systems_in_files_are_seen_from_the_study_file(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        f"""
        blocks = [
            Block("a", systems=["cemobam", "gru.py:GRU", "{in_folder}/gru.py:GRU"],
                  reference="gru.py:GRU", labels={{"gru.py:GRU": "GRU", "cemobam": "CemoBAM"}}),
            Block("b", configurations={{"w/o graph": {{"system": "gru.py:GRU"}}, "as/is.py": {{}}}},
                  reference="w/o graph", labels={{"as/is.py": "as it is"}}),
            Block("c", factors=[Factor("system", ["~/gru.py:GRU"]), Factor("lr", [1])]),
        ]
        """,
        "studies/first.py",
    )
    monkeypatch.setenv("HOME", str(in_folder / "home"))
    a, b, c = load_study(path)
    assert a.names == ("cemobam", "studies/gru.py:GRU", f"{in_folder}/gru.py:GRU")
    assert a.reference == "studies/gru.py:GRU"
    assert [a.label(name) for name in a.names[:2]] == ["CemoBAM", "GRU"]
    assert b.configurations == {"w/o graph": {"system": "studies/gru.py:GRU"}, "as/is.py": {}}
    assert (b.reference, b.label("as/is.py")) == ("w/o graph", "as it is")
    assert c.factors[0].values == (f"{in_folder}/home/gru.py:GRU",)
    Path("studies/gru.py").write_text(GRU)
    (one, other) = Design(blocks={"b": b}).configurations("b", Pair(1, 1))
    assert (one.get("system"), other.get("system")) == ("gru.py:GRU", "cemobam")


def test_it_runs_where_the_user_is_and_is_no_script(in_folder: Path) -> None:
    Path("values.txt").write_text("8 16")
    path = write("""
        from pathlib import Path
        if __name__ == "__main__":
            raise RuntimeError
        values = [int(x) for x in Path("values.txt").read_text().split()]
        blocks = [Block("width", factors=[Factor("hidden_dim", values)])]
    """)
    assert load_study(path)[0].names == (8, 16)

from __future__ import annotations

import copy
import hashlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cemobam_core import CemoBAM, InputError
from cemobam_core.systems import name_of, names, system_class, version_of
from cemobam_core.systems.files import class_in_file
from cemobam_core.systems.logistic import Logistic

ROOT = Path(__file__).resolve().parents[3]

HEAD = """\
from dataclasses import InitVar, dataclass, field
from typing import ClassVar, Literal
from torch import nn
from cemobam_core import CemoBAM, EstimatorSystem, NeuralSystem, System
"""
MODEL = """\
@dataclass(frozen=True)
class M(NeuralSystem):
    width: int = 8
    rate: float = 0.5
    deep: bool = False
    how: Literal["a", "b"] = "a"
    note: str = ""
    def build(self, sizes): return nn.Linear(self.width, 1)
"""
GOOD = HEAD + MODEL
FIRST = HEAD.count("\n") + 1
"""Number of the line after the head."""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a file into the working folder. Its modules are removed after the test."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(content: str | bytes, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    yield write  # type: ignore[misc]
    for name in set(sys.modules) - before:
        of = str(getattr(sys.modules[name], "__file__", None))
        if of.startswith(str(tmp_path)) and not name.startswith("cemobam_file_"):
            del sys.modules[name]


def model(*lines: str, base: str = "NeuralSystem", build: str = "def build(self, sizes): ...") -> str:
    """Return a file with a system M. The given lines start after the class line."""
    body = "\n".join(f"    {line}" for line in (*lines, build) if line)
    return f"{HEAD}@dataclass(frozen=True)\nclass M({base}):\n{body}\n"


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        system_class(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_class_in_a_file_is_a_system(write: Callable[..., Path]) -> None:
    path = write(GOOD)
    kind = system_class("mine.py:M")
    assert kind(width=16).width == 16  # type: ignore[call-arg]
    assert system_class(f"{path}:M") is kind  # the same content is loaded once
    assert name_of(kind) == name_of(kind()) == "mine.py:M"
    assert version_of(kind) == version_of(kind()) == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    with pytest.raises(InputError, match="width=0 must be a whole number"):
        kind(width=0)  # type: ignore[call-arg]


def test_built_in_systems_have_their_names_and_versions() -> None:
    assert {"cemobam", "concat_mlp", "gcn", "logistic"} < set(names())
    for name in names():
        kind = system_class(name)
        assert name_of(kind) == name
        assert version_of(kind) == str(kind.version)


def test_changed_content_and_files_of_the_same_name_are_other_systems(write: Callable[..., Path]) -> None:
    write(GOOD)
    first = system_class("mine.py:M")
    write(GOOD + "# more\n")
    second = system_class("mine.py:M")
    write(GOOD + "# other\n", "there/mine.py")
    third = system_class("there/mine.py:M")
    assert len({first, second, third}) == len({version_of(kind) for kind in (first, second, third)}) == 3
    assert {name_of(kind) for kind in (first, second, third)} == {"mine.py:M"}
    assert first() != second()
    copied = write(GOOD, "copied.py")
    assert name_of(system_class(f"{copied}:M")) == "copied.py:M"  # its own name, although the content is already loaded
    assert version_of(system_class("copied.py:M")) == version_of(first)


def test_neighbours_can_be_imported_and_the_path_is_left_as_it_was(write: Callable[..., Path]) -> None:
    write("WIDTH = 5\n", "there/my_helper.py")
    write(f"from my_helper import WIDTH\n{model('width: int = WIDTH')}", "there/mine.py")
    before = list(sys.path)
    assert system_class("there/mine.py:M")().width == 5  # type: ignore[attr-defined]
    assert sys.path == before


def test_annotations_may_be_strings(write: Callable[..., Path]) -> None:
    write(f"from __future__ import annotations\n{GOOD}")
    with pytest.raises(InputError, match="how='c' is not one of a, b"):
        system_class("mine.py:M")(how="c")  # type: ignore[call-arg]


def test_a_byte_order_mark_and_windows_lines_are_read(write: Callable[..., Path]) -> None:
    write(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert system_class("mine.py:M")().width == 8  # type: ignore[attr-defined]


def test_several_threads_load_a_file_once(write: Callable[..., Path]) -> None:
    write("import time; time.sleep(0.1)\n" + GOOD)
    found: list[type] = []
    threads = [threading.Thread(target=lambda: found.append(system_class("mine.py:M"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_file_that_failed_can_be_mended(write: Callable[..., Path]) -> None:
    write("import no_such_module_at_all\n" + GOOD)
    before = set(sys.modules)
    refusal("mine.py:M")
    assert not any(name.startswith("cemobam_file_") for name in set(sys.modules) - before)
    write(GOOD)
    assert system_class("mine.py:M")


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "syntax error": (
        HEAD + "class M(NeuralSystem)\n    pass\n",
        f"mine.py, line {FIRST}: syntax error: expected ':', in: class M(NeuralSystem)",
    ),
    "not UTF-8": (b"x = 1\n# \xe9\n", "mine.py, line 2: not UTF-8 text; save the file as UTF-8"),
    "a null byte": (b"x = 1\0\n", "null bytes"),
    "missing module": (
        "import no_such.thing\n",
        "mine.py, line 1: module no_such is missing: install it, or put no_such.py beside the file",
    ),
    "missing name": (
        "\nfrom cemobam_core import Nothing\n",
        "mine.py, line 2: ImportError: cannot import name 'Nothing'",
    ),
    "an exception": ("def f():\n    return 1 / 0\nf()\n", "mine.py, line 2: ZeroDivisionError: division by zero"),
    "an exception of many lines": ("raise ValueError('one\\ntwo' * 1000)\n", "mine.py, line 1: ValueError: one two"),
    "an exception without words": (
        "class E(Exception):\n    def __str__(self): return 1 / 0\nraise E\n",
        "mine.py, line 3: E",
    ),
    "sys.exit": (
        "import sys\nsys.exit(0)\n",
        "mine.py, line 2: it ends the program; put code that runs as a script under",
    ),
    "relative import": ("from .other import x\n", "import a module beside the file by its name"),
    "no system": ("x = 1\n", "mine.py: defines no system; derive a frozen dataclass from cemobam_core.NeuralSystem or"),
    "another name": (
        GOOD.replace("class M(", "class Mn("),
        "mine.py: it has no system 'M'; its system is Mn; did you mean Mn?",
    ),
    "several others": (
        GOOD.replace("class M(", "class Ab(") + MODEL.replace("class M(", "class Cd("),
        "mine.py: it has no system 'M'; its systems are Ab, Cd",
    ),
    "a function": ("def M(): ...\n", "mine.py:M: it is a function, not a class"),
    "a value": ("M = 3\n", "mine.py:M: it is of type int, not a class"),
    "a module": (
        HEAD + "class M(nn.Module): ...\n",
        f"mine.py:M, line {FIRST}: not a system; derive it from cemobam_core.NeuralSystem or "
        "cemobam_core.EstimatorSystem; a network is the return value of a system's build",
    ),
    "no base": ("class M: ...\n", "mine.py:M, line 1: not a system; derive it from"),
    "the root": (model(base="System"), "mine.py:M, line 6: not a system; derive it from"),
    "a base class": (HEAD + "M = EstimatorSystem\n", "mine.py:M: this is a base class"),
    "a built-in": (HEAD + "M = CemoBAM\n", "mine.py:M: CemoBAM is imported from cemobam_core.systems.cemobam"),
    "no dataclass": (
        GOOD.replace("@dataclass(frozen=True)\n", ""),
        f"mine.py:M, line {FIRST}: it is not a dataclass; write @dataclass(frozen=True) above the class",
    ),
    "not frozen": (
        GOOD.replace("(frozen=True)", ""),
        f"mine.py, line {FIRST}: TypeError: cannot inherit non-frozen dataclass from a frozen one; write @dataclass(fr",
    ),
    "no equality": (GOOD.replace("frozen=True", "frozen=True, eq=False"), "it is a dataclass with eq=False"),
    "no default": (model("a: int"), f"mine.py:M, line {FIRST + 2}: the field a has no default; give it one"),
    "no default after one": (model("b: int = 1", "a: int"), "non-default argument 'a'"),
    "a list": (
        model("a: list[int] = field(default_factory=list)"),
        f"mine.py:M, line {FIRST + 2}: the field a is of type list[int]; it must be int, float, bool, str, or a Lit",
    ),
    "an option": (model("a: int | None = None"), "the field a is of type int | None"),
    "a plain tuple": (model("a: tuple = ()"), "the field a is of type tuple"),
    "a choice of None": (model("a: Literal['x', None] = None"), "the field a is of type Literal['x', None]"),
    "a mutable default": (model("a: list = []"), "a field must be int, float, bool, str or a Literal of such values"),
    "an unknown type": (
        model("a: 'Foo' = 1"),
        "the type of a field cannot be read: NameError: name 'Foo' is not defined",
    ),
    "init=False": (model("a: int = field(default=1, init=False)"), "the field a has init=False"),
    "InitVar": (model("a: InitVar[int] = 1"), "a is an InitVar"),
    "text that is none": (model("a: str = None"), "the field a is a str, but its default is None; give it a string"),
    "a refused default": (model("a: float = 1e999"), "it rejects its defaults: a=inf must be a finite number"),
    "a name of a column": (model("log: int = 1"), "log"),
    "a failing check": (
        model("def __post_init__(self):", "    raise KeyError('oh')"),
        f"mine.py:M, line {FIRST + 3}: it rejects its defaults: KeyError: 'oh'",
    ),
    "no build": (
        model("a: int = 1", build=""),
        "it does not define build; write def build(self, sizes: Sizes) -> nn.M",
    ),
    "no build of an estimator": (
        model("a: int = 1", build="", base="EstimatorSystem"),
        "it does not define build; write def build(self, sizes: Sizes, seed: int):",
    ),
    **{
        f"field {name}": (
            model("z: int = 1", f"{name}: int = 1"),
            f"line {FIRST + 3}: the field {name} has the name of {of}",
        )
        for name, of in {
            **dict.fromkeys(("epochs", "lr", "precision"), "a setting of the training"),
            **dict.fromkeys(("k_audio", "gather_from"), "a setting of the graph"),
            **dict.fromkeys(("system", "profile", "fold", "seed", "status", "val_wa"), "a column of trials.csv"),
        }.items()
    },
    **{f"field {name}": (model(f"{name}: int = 1"), f"{name} cannot be a field") for name in ("version", "uses_graph")},
}


@pytest.mark.parametrize("case", BROKEN)
def test_every_mistake_is_one_line_with_place_cause_and_remedy(case: str, write: Callable[..., Path]) -> None:
    content, message = BROKEN[case]
    write(content)
    told = refusal("mine.py:M")
    assert message in told
    assert told.startswith("mine.py")
    assert len(told) < 600


def test_the_place_of_a_mistake_in_a_neighbour_is_told(write: Callable[..., Path]) -> None:
    write("x = 1\ny = {}['a']\n", "my_broken.py")
    write("import os\nimport my_broken\n")
    assert refusal("mine.py:M") == "mine.py, line 2: KeyError: 'a' (my_broken.py, line 2)"


@pytest.mark.parametrize("name", ["json", "colorsys", "pytest", "cemobam_core"])  # one of these is not imported yet
def test_a_neighbour_with_the_name_of_another_module_is_refused(name: str, write: Callable[..., Path]) -> None:
    write("x = 1\n", f"{name}.py")
    write(f"import os\nfrom {name} import x\n")
    told = refusal("mine.py:M")
    assert told.startswith(f"mine.py, line 2: imports {name}, but ")
    assert told.endswith("rename the file")


def test_neighbours_of_two_files_are_not_mixed_up(write: Callable[..., Path]) -> None:
    for folder, width in (("one", 1), ("two", 2)):
        write(f"WIDTH = {width}\n", f"{folder}/my_shared.py")
        write(f"from my_shared import WIDTH\n{model('width: int = WIDTH')}# {folder}\n", f"{folder}/mine.py")
    assert system_class("one/mine.py:M")().width == 1  # type: ignore[attr-defined]
    assert "imports my_shared" in refusal("two/mine.py:M")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.py:M", "gone.py: no such file ({folder}/gone.py); give FILE.py:NAME"),
        ("mine.txt:M", "mine.txt: not a Python file (its name does not end in .py); give FILE.py:NAME"),
        ("mine:M", "mine: not a Python file"),
        ("folder.py:M", "folder.py: not a file"),
        ("mine.py", "mine.py: name the system, as in mine.py:M; its system is M"),
        ("mine.py:", "mine.py: name the system, as in mine.py:M; its system is M"),
        ("concat_mpl", f"no system is called 'concat_mpl'; choose from {', '.join(names())}, or give"),
        ("concat_mpl", "; did you mean concat_mlp?"),
    ],
)
def test_a_wrong_name_is_told(name: str, message: str, write: Callable[..., Path], tmp_path: Path) -> None:
    write(GOOD)
    (tmp_path / "folder.py").mkdir()
    assert message.format(folder=tmp_path) in refusal(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(write: Callable[..., Path]) -> None:
    write(GOOD).chmod(0)
    assert refusal("mine.py:M") == "mine.py: cannot be read (Permission denied)"


def cloudpickled(value: object) -> bytes:
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    return cloudpickle.dumps(value)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_this_process_are_the_same_class(protocol: int, write: Callable[..., Path]) -> None:
    path = write(GOOD)
    kind = system_class("mine.py:M")
    system = kind(width=3, how="b")  # type: ignore[call-arg]
    path.unlink()
    for dumps in (lambda value: pickle.dumps(value, protocol), cloudpickled):
        again, its_class, *built_in = pickle.loads(dumps((system, kind, CemoBAM, CemoBAM(heads=2), Logistic())))
        assert its_class is kind
        assert again == system
        assert hash(again) == hash(system)
        assert built_in == [CemoBAM, CemoBAM(heads=2), Logistic()]
    assert copy.deepcopy(system) == system
    assert copy.deepcopy(kind) is kind


def test_slots_and_helpers_of_the_same_file_are_pickled(write: Callable[..., Path]) -> None:
    write(GOOD.replace("frozen=True", "frozen=True, slots=True") + MODEL.replace("class M(Neural", "class N(Neural"))
    system = system_class("mine.py:M")(width=3)  # type: ignore[call-arg]
    other = vars(sys.modules[type(system).__module__])["N"](width=4)
    assert pickle.loads(pickle.dumps((system, other))) == (system, other)


READ = """
import pickle, sys
system, kind = pickle.load(open(sys.argv[1], "rb"))
from cemobam_core.systems import name_of, system_class, version_of
assert type(system) is kind
assert hash(system) == hash(kind(width=3)) and system == kind(width=3)
print(repr(system), name_of(system), version_of(system), kind.build.__code__.co_firstlineno)
if len(sys.argv) > 2:
    assert system_class(sys.argv[2]) is kind
"""


@pytest.mark.process
@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickled])
def test_a_process_that_never_saw_the_file_reads_a_pickle(
    dumps: Callable[[object], bytes], write: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(GOOD)
    kind = system_class("mine.py:M")
    system, elsewhere = kind(width=3), tmp_path_factory.mktemp("elsewhere")  # type: ignore[call-arg]
    (elsewhere / "pickle").write_bytes(dumps((system, kind)))
    moved = path.rename(elsewhere / "mine.py")
    for more in ([], [f"{moved}:M"]):
        told = subprocess.run(
            [sys.executable, "-c", READ, "pickle", *more],
            cwd=elsewhere,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        line = kind.build.__code__.co_firstlineno  # type: ignore[attr-defined]
        assert told.split("\n")[0] == f"{system!r} mine.py:M {version_of(kind)} {line}"


def _answer(system: Any, connection: Any) -> None:
    connection.send((system, name_of(system), version_of(system)))


@pytest.mark.process
def test_spawned_workers_are_given_a_system_and_its_neighbours(write: Callable[..., Path]) -> None:
    write("WIDTH = 5\n", "there/my_neighbour.py")
    path = write(f"from my_neighbour import WIDTH\n{model('width: int = WIDTH')}", "there/mine.py")
    system = class_in_file("there/mine.py:M")(width=7)  # type: ignore[call-arg]
    path.unlink()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(system, theirs))
    process.start()
    assert ours.poll(120)
    assert ours.recv() == (system, "mine.py:M", version_of(system))
    process.join()
    assert process.exitcode == 0

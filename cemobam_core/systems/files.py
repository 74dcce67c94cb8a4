"""Systems of a user's own: a class in a file outside the project, ``mine.py:MyModel``.

A file is read once in a process. The text that was read is the text that runs, that a trial's signature covers and that
travels to workers: a pickled system holds it, so another process needs no file. The signature covers the file itself
alone, not the modules that it imports.
"""

from __future__ import annotations

import ast
import copyreg
import difflib
import hashlib
import importlib.util
import inspect
import linecache
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import MISSING, Field, InitVar, dataclass, fields
from functools import cached_property
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from cemobam_core.errors import InputError
from cemobam_core.metrics import METRICS
from cemobam_core.systems.system import EstimatorSystem, NeuralSystem, System, SystemType

_BASES = "cemobam_core.NeuralSystem or cemobam_core.EstimatorSystem"

_TYPES = (int, float, bool, str)
"""What the value of a field can be: it is checked, typed on a command line and written to a table."""

_TRIAL = {
    *("system", "profile", "fold", "seed", "dataset", "status", "seconds", "device", "reason", "log"),
    *(f"{split}_{metric}" for split in ("train", "val", "test") for metric in ("loss", *METRICS)),
}
"""The names that a trial has for itself, beside its settings: the other columns of ``trials.csv``."""

_ATTRIBUTES = {
    *("version", "uses_graph", "group", "prescribed", "search"),
    *("build", "fit", "matrix", "probabilities", "check_graph"),
}
"""What every system has and is no field."""

_LONGEST = 300
"""Characters of an exception's message that are told."""


@dataclass(frozen=True)
class SystemFile:
    """A user's file, as it was read.

    Attributes:
        path: where it was read, absolute; on another machine it may not be there.
        content: all of it.
    """

    path: str
    content: bytes

    @property
    def name(self) -> str:
        """Its last part, ``mine.py``."""
        return Path(self.path).name

    @cached_property
    def version(self) -> str:
        """16 hexadecimal digits that stand for its content."""
        return hashlib.sha256(self.content).hexdigest()[:16]

    @cached_property
    def module(self) -> str:
        """The name of its module in this process: the same for the same name and content, wherever it was read."""
        return f"cemobam_file_{hashlib.sha256(self.name.encode() + bytes(1) + self.content).hexdigest()[:24]}"


_LOADED: dict[str, SystemFile] = {}
"""By the name of the module, the files that this process has loaded."""

_LOCK = RLock()


def is_in_file(name: str) -> bool:
    """Return whether the name of a system is meant as ``FILE.py:NAME``."""
    return ":" in name or "/" in name or os.sep in name or name.endswith(".py")


def file_of(kind: type[System]) -> SystemFile | None:
    """Return the user's file that defines a system's class; None: it is not of a user's file."""
    return _LOADED.get(kind.__module__)


def path_of(name: str) -> str:
    """Return the absolute path of the file that ``FILE.py:NAME`` names."""
    return os.path.abspath(Path(_parts(name)[0]).expanduser())  # noqa: PTH100  (keeps links, by which neighbours lie)


def class_in_file(name: str) -> type[System]:
    """Return the class that ``FILE.py:NAME`` names. The same content is loaded once in a process.

    The file's folder is on ``sys.path`` while the file is imported, so it may import its neighbours.

    Raises:
        InputError: no such file, an error while it is imported, or a class that is not a system: the message is one
            line that says where, why and what to do.
    """
    given, class_name = _parts(name)
    file = _read(given, path_of(name))
    kind = _named(_module(file, given), class_name, given)
    check_class(kind, f"{given}:{class_name}")
    return kind


def check_class(kind: type[System], shown: str) -> None:
    """Check that the class of a user's file is a system whose settings can be typed, checked and told apart.

    Args:
        kind: the class, of a file that is loaded.
        shown: what messages call it.

    Raises:
        InputError: it is not.
    """

    def refuse(why: str, field: str = "") -> NoReturn:
        raise InputError(f"{place(shown, _line_of(kind, field))}: {why}")

    if "__dataclass_params__" not in vars(kind):
        refuse("it is not a dataclass; write @dataclass(frozen=True) above the class")
    if not vars(kind)["__dataclass_params__"].eq:
        refuse("it is a dataclass with eq=False, so that two configurations cannot be compared; leave eq out")
    try:
        hints = get_type_hints(kind)
    except Exception as error:  # a hint is any expression
        refuse(f"the type of a field cannot be read: {told(error)}")
    for name, hint in hints.items():
        if isinstance(hint, InitVar):
            refuse(f"{name} is an InitVar, which no configuration holds; make it a field or leave it out", name)
    for field in fields(kind):
        if why := _wrong_name(field.name) or _wrong_type(field, hints[field.name]):
            refuse(why, field.name)
        owner = next((cls for cls in kind.__mro__ if field.name in vars(cls)), kind)
        if field.name not in vars(owner).get("__annotations__", {}):
            value = vars(owner)[field.name]
            hint = getattr(hints[field.name], "__name__", hints[field.name])
            refuse(f"{field.name} is a field of a base; to change its default write {field.name}: {hint} = {value!r}")
    if missing := sorted(kind.__abstractmethods__):
        refuse(f"it does not define {' and '.join(missing)}; {_signature(kind)}")
    try:
        kind()
    except Exception as error:
        file = _LOADED[kind.__module__]
        line = line_in(error, file.path) or _line_of(kind)
        raise InputError(f"{place(shown, line)}: its defaults are refused: {told(error, file.path)}") from error


def place(shown: str, line: int | None) -> str:
    """Return where something is, in words."""
    return f"{shown}, line {line}" if line else shown


def line_in(error: BaseException, path: str) -> int | None:
    """Return the line of a file where an exception happened: of the deepest frame in it, if there is any."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == path]
    return lines[-1] if lines else None


def told(error: BaseException, path: str = "") -> str:
    """Return what an exception says, in one line, and where in a neighbour of the file it happened, with the remedy.

    Args:
        error: any exception.
        path: of the user's file.
    """
    try:
        message = " ".join(str(error).split())
    except Exception:
        message = ""
    message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"
    match error:
        case ModuleNotFoundError(name=str(name)):
            top = name.partition(".")[0]
            what = (
                f"module {name} is missing: install it here, or put {top}.py beside the file and import it at the top"
            )
        case SystemExit():
            what = 'it ends the program; what runs as a script belongs under if __name__ == "__main__"'
        case InputError() if message:
            what = message
        case _:
            what = f"{type(error).__name__}: {message}" if message else type(error).__name__
    for part, remedy in _REMEDIES.items():
        if part in message:
            what += f"; {remedy}"
    beside = [
        f"{Path(frame.f_code.co_filename).name}, line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if path and frame.f_code.co_filename != path and Path(frame.f_code.co_filename).parent == Path(path).parent
    ]
    return f"{what} ({beside[-1]})" if beside else what


_REMEDIES = {
    "cannot inherit non-frozen dataclass": "write @dataclass(frozen=True)",
    "non-default argument": "give every field a default",
    "mutable default": f"a field is {', '.join(kind.__name__ for kind in _TYPES)} or a Literal of such values",
    "failed to un-serialize": "leave n_jobs out: other processes do not know the classes of the file",
    "attempted relative import": "import a neighbour by its name alone, as from helpers import …",
}
"""By a part of a message, what to do."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question that offers the nearest of the known names; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _parts(name: str) -> tuple[str, str]:
    """Return the file and the class of ``FILE.py:NAME``; the class is empty where none is given."""
    file, colon, class_name = name.rpartition(":")
    return (file, class_name) if colon and not class_name.endswith(".py") else (name, "")


def _read(given: str, path: str) -> SystemFile:
    """Return a file.

    Args:
        given: as the user typed it, for messages.
        path: absolute.
    """
    if not given.endswith(".py"):
        raise InputError(f"{given}: not a Python file, whose name ends in .py; give FILE.py:NAME")
    at = Path(path)
    try:
        if at.exists() and not at.is_file():
            raise InputError(f"{given}: not a file; give FILE.py:NAME")
        content = at.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{given}: there is no such file; looked for {path}") from None
    except OSError as error:
        raise InputError(f"{given}: cannot be read ({error.strerror or error})") from None
    return SystemFile(path, content)


def _module(file: SystemFile, given: str) -> ModuleType:
    """Return the module of a file; runs the file, if this process has not done so."""
    with _LOCK:
        if file.module not in _LOADED:
            _run(file, given)
        return sys.modules[file.module]


def _run(file: SystemFile, given: str) -> None:
    try:
        text = file.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = file.content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{place(given, line)}: not UTF-8 text; save the file as UTF-8") from None
    try:
        tree = ast.parse(text, file.path)
        code = compile(tree, file.path, "exec", dont_inherit=True)
    except SyntaxError as error:
        what = f"syntax error: {error.msg}" + (f", in: {error.text.strip()}" if error.text else "")
        raise InputError(f"{place(given, error.lineno)}: {what}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte; nested too deep
        raise InputError(f"{given}: cannot be compiled: {told(error)}") from None
    folder = os.path.dirname(file.path)  # noqa: PTH120
    # Tracebacks and inspect.getsource show the text that runs, whatever becomes of the file.
    linecache.cache[file.path] = (len(text), None, text.splitlines(keepends=True), file.path)
    module = ModuleType(file.module)
    module.__file__, module.__package__ = file.path, ""
    sys.modules[file.module] = module
    importlib.invalidate_caches()  # a neighbour may be new
    sys.path.append(folder)  # last: a neighbour called json.py must not stand in for Python's in other modules
    try:
        _check_neighbours(tree, folder, given)
        exec(code, vars(module))
    except BaseException as error:
        del sys.modules[file.module]
        where = line_in(error, file.path)
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, InputError) and not where):  # of the neighbours
            raise
        raise InputError(f"{place(given, where)}: {told(error, file.path)}") from error
    finally:
        with suppress(ValueError, IndexError):
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]
    _LOADED[file.module] = file


def _check_neighbours(tree: ast.Module, folder: str, given: str) -> None:
    """Refuse an import that would give another module than the neighbour of this name: Python has one of a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported = {node.module}
        else:
            continue
        for top in sorted({name.partition(".")[0] for name in imported}):
            beside = [path for path in (Path(folder, top, "__init__.py"), Path(folder, f"{top}.py")) if path.is_file()]
            if beside and not _is_at(top, beside[0]):
                raise InputError(
                    f"{place(given, node.lineno)}: imports {top}, which is {beside[0]} or another module of this name, "
                    "of Python, of a package or of another system; rename the file"
                )


def _is_at(name: str, path: Path) -> bool:
    """Return whether to import ``name`` gives the module at a path."""
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec else None
    return origin is not None and Path(origin).exists() and path.samefile(origin)


def _named(module: ModuleType, name: str, given: str) -> type[System]:
    """Return the system of a name in a module."""
    systems = [key for key, value in vars(module).items() if _is_system(value) and value.__module__ == module.__name__]
    if name not in vars(module):
        if not systems:
            raise InputError(f"{given}: defines no system; derive a frozen dataclass from {_BASES}")
        there = f"its system{'s are' if systems[1:] else ' is'} {', '.join(systems)}"
        missing = f"{name!r} is not in it" if name else f"name the system, as {given}:{systems[0]}"
        raise InputError(f"{given}: {missing}; {there}{did_you_mean(name, systems)}")
    kind, shown = vars(module)[name], f"{given}:{name}"
    if not isinstance(kind, type):
        what = "a function" if inspect.isroutine(kind) else f"of type {type(kind).__name__}"
        raise InputError(f"{shown}: it is {what}, not a class; a system is a frozen dataclass derived from {_BASES}")
    if kind in (System, NeuralSystem, EstimatorSystem):
        raise InputError(f"{shown}: the base class itself; derive a frozen dataclass from it, and name that")
    if not _is_system(kind):
        module_like = any(base.__module__.startswith("torch.nn") for base in kind.__mro__)
        hint = "; a network is what a system's build returns" if module_like else ""
        raise InputError(f"{place(shown, _line_of(kind))}: not a system; derive it from {_BASES}{hint}")
    if kind.__module__ != module.__name__:
        raise InputError(f"{shown}: {kind.__name__} is imported from {kind.__module__}; name the file that defines it")
    same: object = vars(module).get(kind.__qualname__)
    if same is not kind:
        raise InputError(f"{place(shown, _line_of(kind))}: its class is called {kind.__qualname__}; use one name")
    return kind


def _is_system(value: object) -> bool:
    bases = (NeuralSystem, EstimatorSystem)
    return isinstance(value, type) and issubclass(value, bases) and value not in bases


def _wrong_name(name: str) -> str:
    """Return why a field cannot have a name; empty: it can."""
    from cemobam_core.graph import GraphConfig  # noqa: PLC0415  (slow to import)
    from cemobam_core.training.config import TrainingConfig  # noqa: PLC0415

    if name in _ATTRIBUTES:
        return f"{name} is not for a field: every system has it; write {name}: ClassVar[…] = …, or rename the field"
    of = {"a setting of the training": TrainingConfig, "a setting of the graph": GraphConfig}
    taken = {field.name: what for what, config in of.items() for field in fields(config)}
    taken |= dict.fromkeys(_TRIAL, "what a trial has")
    return (
        f"the field {name} has the name of {taken[name]}; rename it, for example to own_{name}" if name in taken else ""
    )


def _wrong_type(field: Field[Any], hint: object) -> str:
    """Return why a field's values cannot be checked; empty: they can."""
    names = ", ".join(kind.__name__ for kind in _TYPES)
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    if hint not in _TYPES and not (choices and all(isinstance(choice, _TYPES) for choice in choices)):
        given = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
        return f"the field {field.name} is of type {given}; it must be {names}, or a Literal of such values"
    if not field.init:
        return f"the field {field.name} has init=False, so nobody can set it; leave init out, or use a property"
    if field.default is MISSING and field.default_factory is MISSING:
        return f"the field {field.name} has no default; give it one"
    if hint is str and field.default is not MISSING and not isinstance(field.default, str):
        return f"the field {field.name} is a str, but its default is {field.default!r}; give it text"
    return ""


def _signature(kind: type[System]) -> str:
    neural = "def build(self, sizes: Sizes) -> nn.Module:"
    return f"write {'def build(self, sizes: Sizes, seed: int):' if issubclass(kind, EstimatorSystem) else neural}"


def _line_of(kind: type, field: str = "") -> int | None:
    """Return the line of a class in a user's file, or of a field of it where that stands in it."""
    if (file := _LOADED.get(kind.__module__)) is None:
        return None
    body = ast.parse(file.content.decode("utf-8-sig")).body
    found = [node for node in body if isinstance(node, ast.ClassDef) and node.name == kind.__name__]
    if not found:
        return None
    lines = {
        node.target.id: node.lineno
        for node in found[-1].body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return lines.get(field, found[-1].lineno)


def _restored(path: str, content: bytes, name: str) -> type[System]:
    """Return the class of a pickle; runs the file's text, if this process has not done so."""
    file = SystemFile(path, content)
    kind: type[System] = vars(_module(file, file.name))[name]
    return kind


def _reduced(kind: type[System]) -> str | tuple[Callable[..., type[System]], tuple[str, bytes, str]]:
    """Pickle a class: of a user's file with the file, any other by name. An instance is its class and its values."""
    file = _LOADED.get(kind.__module__)
    if file is None or vars(sys.modules[file.module]).get(kind.__name__) is not kind:
        return kind.__qualname__
    return _restored, (file.path, file.content, kind.__name__)


copyreg.pickle(SystemType, _reduced)  # type: ignore[arg-type]

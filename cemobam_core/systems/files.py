"""Users' own systems: a class in a file outside the project, ``mine.py:MyModel``.

A process reads a file once. The text that it read is the text that runs, that a trial's signature covers and that is
sent to workers: a pickled system contains the text, so another process does not need the file. The signature covers the
file only, not the modules that it imports.
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
"""Types of a field's value. These can be checked, typed on a command line and written to a table."""

_TRIAL_COLUMNS = {
    *("system", "profile", "fold", "seed", "dataset", "status", "seconds", "device", "reason", "log"),
    *(f"{split}_{metric}" for split in ("train", "val", "test") for metric in ("loss", *METRICS)),
}
"""Columns of ``trials.csv`` that are not settings. A field of a system cannot have these names."""

_ATTRIBUTES = {
    *("version", "uses_graph", "group", "prescribed", "search"),
    *("build", "fit", "matrix", "probabilities", "check_graph"),
}
"""Attributes that every system has in addition to its fields."""

_MAX_MESSAGE = 300
"""Largest number of characters of an exception's message that is shown."""


@dataclass(frozen=True)
class SystemFile:
    """A user's file with the content that was read.

    Attributes:
        path: Absolute path of the file. On another machine it may not exist.
        content: Content of the file.
    """

    path: str
    content: bytes

    @property
    def name(self) -> str:
        """The name of the file, for example ``mine.py``."""
        return Path(self.path).name

    @cached_property
    def version(self) -> str:
        """16 hexadecimal digits that identify the content."""
        return hashlib.sha256(self.content).hexdigest()[:16]

    @cached_property
    def module(self) -> str:
        """The name of the module in this process. It depends only on the name and content of the file."""
        return f"cemobam_file_{hashlib.sha256(self.name.encode() + bytes(1) + self.content).hexdigest()[:24]}"


_LOADED: dict[str, SystemFile] = {}
"""Files that this process has loaded, by the name of the module."""

_LOCK = RLock()


def is_in_file(name: str) -> bool:
    """Return whether a name of a system has the form ``FILE.py:NAME``."""
    return ":" in name or "/" in name or os.sep in name or name.endswith(".py")


def file_of(kind: type[System]) -> SystemFile | None:
    """Return the user's file that defines the class of a system, or ``None`` for any other class."""
    return _LOADED.get(kind.__module__)


def path_of(name: str) -> str:
    """Return the absolute path of the file in ``FILE.py:NAME``."""
    return os.path.abspath(Path(_parts(name)[0]).expanduser())  # noqa: PTH100  (keeps links, to find neighbours)


def class_in_file(name: str) -> type[System]:
    """Return the class that ``FILE.py:NAME`` names. A process loads the same content only once.

    The file's folder is on ``sys.path`` while the file is imported, so the file may import modules beside it.

    Raises:
        InputError: The file does not exist or cannot be imported, or the class is not a system. The message is one line
            with the place, the cause and the remedy.
    """
    given, class_name = _parts(name)
    file = _read(given, path_of(name))
    kind = _named(_module(file, given), class_name, given)
    check_class(kind, f"{given}:{class_name}")
    return kind


def check_class(kind: type[System], shown: str) -> None:
    """Check that the class of a user's file is a system whose settings can be typed, checked and compared.

    Args:
        kind: Class of a file that is loaded.
        shown: Name of the class in messages.

    Raises:
        InputError: The class is not such a system.
    """

    def refuse(why: str, field: str = "") -> NoReturn:
        raise InputError(f"{place(shown, _line_of(kind, field))}: {why}")

    if "__dataclass_params__" not in vars(kind):
        refuse("it is not a dataclass; write @dataclass(frozen=True) above the class")
    if not vars(kind)["__dataclass_params__"].eq:
        refuse("it is a dataclass with eq=False, so two configurations cannot be compared; remove eq=False")
    try:
        hints = get_type_hints(kind)
    except Exception as error:  # a hint can be any expression
        refuse(f"the type of a field cannot be read: {told(error)}")
    for name, hint in hints.items():
        if isinstance(hint, InitVar):
            refuse(f"{name} is an InitVar, which a configuration cannot store; make it a field or remove it", name)
    for field in fields(kind):
        if why := _wrong_name(field.name) or _wrong_type(field, hints[field.name]):
            refuse(why, field.name)
        owner = next((cls for cls in kind.__mro__ if field.name in vars(cls)), kind)
        if field.name not in vars(owner).get("__annotations__", {}):
            value = vars(owner)[field.name]
            hint = getattr(hints[field.name], "__name__", hints[field.name])
            refuse(f"{field.name} is a field of a base; to change its default, write {field.name}: {hint} = {value!r}")
    if missing := sorted(kind.__abstractmethods__):
        refuse(f"it does not define {' and '.join(missing)}; {_signature(kind)}")
    try:
        kind()
    except Exception as error:
        file = _LOADED[kind.__module__]
        line = line_in(error, file.path) or _line_of(kind)
        raise InputError(f"{place(shown, line)}: it rejects its defaults: {told(error, file.path)}") from error


def place(shown: str, line: int | None) -> str:
    """Return a place in a file as text."""
    return f"{shown}, line {line}" if line else shown


def line_in(error: BaseException, path: str) -> int | None:
    """Return the line of a file where an exception occurred, in the deepest frame of that file, or ``None``."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == path]
    return lines[-1] if lines else None


def told(error: BaseException, path: str = "") -> str:
    """Describe an exception in one line, with its place in a module beside the user's file and with a remedy.

    Args:
        error: Any exception.
        path: Path of the user's file.
    """
    try:
        message = " ".join(str(error).split())
    except Exception:
        message = ""
    message = message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}…"
    match error:
        case ModuleNotFoundError(name=str(name)):
            top = name.partition(".")[0]
            what = f"module {name} is missing: install it, or put {top}.py beside the file and import it at the top"
        case SystemExit():
            what = 'it ends the program; put code that runs as a script under if __name__ == "__main__"'
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
    "mutable default": f"a field must be {', '.join(kind.__name__ for kind in _TYPES)} or a Literal of such values",
    "failed to un-serialize": "remove n_jobs: other processes do not know the classes of the file",
    "attempted relative import": "import a module beside the file by its name, as in: from helpers import …",
}
"""Remedies, by a part of the exception's message."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question with the most similar known name, or an empty string if none is similar."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _parts(name: str) -> tuple[str, str]:
    """Split ``FILE.py:NAME`` into the file and the class. The class is empty if it is missing."""
    file, colon, class_name = name.rpartition(":")
    return (file, class_name) if colon and not class_name.endswith(".py") else (name, "")


def _read(given: str, path: str) -> SystemFile:
    """Read a file.

    Args:
        given: Path as the user typed it, for messages.
        path: Absolute path.
    """
    if not given.endswith(".py"):
        raise InputError(f"{given}: not a Python file (its name does not end in .py); give FILE.py:NAME")
    at = Path(path)
    try:
        if at.exists() and not at.is_file():
            raise InputError(f"{given}: not a file; give FILE.py:NAME")
        content = at.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{given}: no such file ({path}); give FILE.py:NAME") from None
    except OSError as error:
        raise InputError(f"{given}: cannot be read ({error.strerror or error})") from None
    return SystemFile(path, content)


def _module(file: SystemFile, given: str) -> ModuleType:
    """Return the module of a file. Run the file if this process has not done so."""
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
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte, or too much nesting
        raise InputError(f"{given}: cannot be compiled: {told(error)}") from None
    folder = os.path.dirname(file.path)  # noqa: PTH120
    # Tracebacks and inspect.getsource show the text that runs, even if the file changes.
    linecache.cache[file.path] = (len(text), None, text.splitlines(keepends=True), file.path)
    module = ModuleType(file.module)
    module.__file__, module.__package__ = file.path, ""
    sys.modules[file.module] = module
    importlib.invalidate_caches()  # a module beside the file may be new
    sys.path.append(folder)  # at the end: a module beside the file called json.py must not replace Python's json
    try:
        _check_neighbours(tree, folder, given)
        exec(code, vars(module))
    except BaseException as error:
        del sys.modules[file.module]
        where = line_in(error, file.path)
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, InputError) and not where):  # _check_neighbours
            raise
        raise InputError(f"{place(given, where)}: {told(error, file.path)}") from error
    finally:
        with suppress(ValueError, IndexError):
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]
    _LOADED[file.module] = file


def _check_neighbours(tree: ast.Module, folder: str, given: str) -> None:
    """Raise InputError if an import would load another module than the one of this name beside the file."""
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
                    f"{place(given, node.lineno)}: imports {top}, but {beside[0]} and another module (of Python, a "
                    "package or another system) have this name; rename the file"
                )


def _is_at(name: str, path: Path) -> bool:
    """Return whether ``import name`` loads the module at a path."""
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec else None
    return origin is not None and Path(origin).exists() and path.samefile(origin)


def _named(module: ModuleType, name: str, given: str) -> type[System]:
    """Return the system of this name in a module."""
    systems = [key for key, value in vars(module).items() if _is_system(value) and value.__module__ == module.__name__]
    if name not in vars(module):
        if not systems:
            raise InputError(f"{given}: defines no system; derive a frozen dataclass from {_BASES}")
        there = f"its system{'s are' if systems[1:] else ' is'} {', '.join(systems)}"
        missing = f"it has no system {name!r}" if name else f"name the system, as in {given}:{systems[0]}"
        raise InputError(f"{given}: {missing}; {there}{did_you_mean(name, systems)}")
    kind, shown = vars(module)[name], f"{given}:{name}"
    if not isinstance(kind, type):
        what = "a function" if inspect.isroutine(kind) else f"of type {type(kind).__name__}"
        raise InputError(f"{shown}: it is {what}, not a class; a system is a frozen dataclass derived from {_BASES}")
    if kind in (System, NeuralSystem, EstimatorSystem):
        raise InputError(f"{shown}: this is a base class; derive a frozen dataclass from it and give its name")
    if not _is_system(kind):
        module_like = any(base.__module__.startswith("torch.nn") for base in kind.__mro__)
        hint = "; a network is the return value of a system's build" if module_like else ""
        raise InputError(f"{place(shown, _line_of(kind))}: not a system; derive it from {_BASES}{hint}")
    if kind.__module__ != module.__name__:
        raise InputError(f"{shown}: {kind.__name__} is imported from {kind.__module__}; give the file that defines it")
    same: object = vars(module).get(kind.__qualname__)
    if same is not kind:
        raise InputError(f"{place(shown, _line_of(kind))}: its class has the name {kind.__qualname__}; use one name")
    return kind


def _is_system(value: object) -> bool:
    bases = (NeuralSystem, EstimatorSystem)
    return isinstance(value, type) and issubclass(value, bases) and value not in bases


def _wrong_name(name: str) -> str:
    """Return the reason why a field cannot have a name, or an empty string if it can."""
    from cemobam_core.graph import GraphConfig  # noqa: PLC0415  (slow to import)
    from cemobam_core.training.config import TrainingConfig  # noqa: PLC0415

    if name in _ATTRIBUTES:
        return f"{name} cannot be a field, as every system has it; write {name}: ClassVar[…] = …, or rename the field"
    configs = {"a setting of the training": TrainingConfig, "a setting of the graph": GraphConfig}
    taken = {field.name: what for what, config in configs.items() for field in fields(config)}
    taken |= dict.fromkeys(_TRIAL_COLUMNS, "a column of trials.csv")
    return (
        f"the field {name} has the name of {taken[name]}; rename it, for example to own_{name}" if name in taken else ""
    )


def _wrong_type(field: Field[Any], hint: object) -> str:
    """Return the reason why a field's values cannot be checked, or an empty string if they can."""
    names = ", ".join(kind.__name__ for kind in _TYPES)
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    if hint not in _TYPES and not (choices and all(isinstance(choice, _TYPES) for choice in choices)):
        given = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
        return f"the field {field.name} is of type {given}; it must be {names}, or a Literal of such values"
    if not field.init:
        return f"the field {field.name} has init=False, so it cannot be set; remove init=False, or use a property"
    if field.default is MISSING and field.default_factory is MISSING:
        return f"the field {field.name} has no default; give it one"
    if hint is str and field.default is not MISSING and not isinstance(field.default, str):
        return f"the field {field.name} is a str, but its default is {field.default!r}; give it a string"
    return ""


def _signature(kind: type[System]) -> str:
    neural = "def build(self, sizes: Sizes) -> nn.Module:"
    return f"write {'def build(self, sizes: Sizes, seed: int):' if issubclass(kind, EstimatorSystem) else neural}"


def _line_of(kind: type, field: str = "") -> int | None:
    """Return the line of a class in a user's file, or the line of one of its fields if it is defined there."""
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
    """Return the class of a pickle. Run the text of the file if this process has not done so."""
    file = SystemFile(path, content)
    kind: type[System] = vars(_module(file, file.name))[name]
    return kind


def _reduced(kind: type[System]) -> str | tuple[Callable[..., type[System]], tuple[str, bytes, str]]:
    """Pickle a class: with its file if a user's file defines it, and by name otherwise."""
    file = _LOADED.get(kind.__module__)
    if file is None or vars(sys.modules[file.module]).get(kind.__name__) is not kind:
        return kind.__qualname__
    return _restored, (file.path, file.content, kind.__name__)


copyreg.pickle(SystemType, _reduced)  # type: ignore[arg-type]

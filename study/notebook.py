"""The study as functions, for a notebook or a script: :func:`run` and :func:`figures`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from cemobam_core.errors import InputError
from cemobam_core.progress import in_notebook
from study.commands.exit_status import told
from study.commands.options import STUDY
from study.commands.parsing import Option, did_you_mean
from study.findings.results import Results, load_results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")

_OPTIONS = {option.name: option for group in STUDY for option in group.options}
"""Every option of the command line, by the name of its argument."""


def _in_python(function: Callable[P, T]) -> Callable[P, T]:
    """Shorten the traceback of errors, and name arguments instead of options in their messages."""

    @functools.wraps(function)
    def in_python(*args: P.args, **options: P.kwargs) -> T:
        try:
            return function(*args, **options)
        except KeyboardInterrupt:
            kept = "the trials that are done are kept; the same call continues from there"
            raise KeyboardInterrupt(kept) from None
        except Exception as error:
            message = told(error)
            if message is None:
                raise
            raise InputError(re.sub(r"--([a-z][a-z-]*)", _argument, message)) from None

    return in_python


def _argument(flag: re.Match[str]) -> str:
    name = flag[1].replace("-", "_")
    return f"`{name}`" if name in _OPTIONS else flag[0]


@overload
def run(*, dry_run: Literal[True], **options: Any) -> None: ...
@overload
def run(*, print_report: bool = False, **options: Any) -> Results: ...
@_in_python
def run(*, print_report: bool = False, **options: Any) -> Results | None:
    """Run the trials of a study that are missing, write its report, and return its results.

    Every option of ``run_grid.py`` is an argument: ``--k-audio 1,4`` is ``k_audio=[1, 4]``. Its value is a Python
    value, or the text that the command line takes. Flags take True, and the options that may be repeated take a
    dictionary: ``set={"gat_layers": 2}``, ``vary={"hidden_dim": [128, 256]}``.

    The function writes the same files as ``run_grid.py``, by default to ``results/`` and ``plots/`` in the working
    folder. If you interrupt it, the trials that are done are kept. The same call continues from there.

    Args:
        print_report: Whether to print the summary that ``run_grid.py`` prints at its end.
        options: Options of ``cemobam run``, with underscores: ``dataset``, ``features``, ``k_audio``, ``seeds``,
            ``blocks``, ``epochs``, ``workers`` and so on. ``cemobam run --help`` explains each.

    Returns:
        The results of the study, or `None` with ``dry_run=True``, which only prints the plan.

    Raises:
        InputError: An option or the data cannot be used. The message names the argument and the remedy.
        KeyboardInterrupt: You interrupted the run.

    Example:
        >>> import study
        >>> results = study.run(dataset="demo", k_audio=[1, 4], k_text=[1, 4], seeds=2)  # doctest: +SKIP
    """
    from study.commands import run as command  # noqa: PLC0415
    from study.commands.request import Request  # noqa: PLC0415
    from study.commands.running import run_study  # noqa: PLC0415

    args = _arguments(command, options)
    run_study(args, print_report=print_report)
    return None if args.dry_run else load_results(Request.of(args).results)


@_in_python
def figures(of: Results | Path | str, only: str | Sequence[str] | None = None, **options: Any) -> dict[str, Figure]:
    """Return the figures of a study by name, drawn from its ledger.

    Args:
        of: The results, or their folder, such as ``results/demo``.
        only: The name of a figure, or several names. By default, every figure that can be drawn is returned.
        options: Options of ``cemobam figures``, with underscores. Give ``storage`` if the ledger is not in the folder
            of the results, and settings such as ``epochs`` to choose among several studies with the same name.

    Raises:
        InputError: There is no such study or figure, or a figure that you name cannot be drawn yet.

    Example:
        >>> study.figures("results/demo", only="topk")["topk"]  # doctest: +SKIP
    """
    from study.commands import figures as command  # noqa: PLC0415
    from study.commands.recall import recorded  # noqa: PLC0415
    from study.commands.request import Request  # noqa: PLC0415
    from study.findings.evidence import Evidence  # noqa: PLC0415
    from study.output.figures import drawings  # noqa: PLC0415

    if in_notebook():
        import_module("matplotlib_inline.backend_inline")  # it shows a figure that is the value of a cell
    request = Request.of(_arguments(command, {**_where(of, options), **options}))
    evidence = Evidence.of(recorded(request), name=request.name, models=request.models)
    known = drawings(evidence)
    drawn: dict[str, Figure] = {}
    for name in [only] if isinstance(only, str) else list(only or known):
        if name not in known:
            raise InputError(f"only={name!r}: no such figure; choose from {', '.join(known)}")
        figure = known[name].draw(evidence)
        if not isinstance(figure, str):
            drawn[name] = figure
        elif only:
            raise InputError(f"only={name!r}: {figure}")
    return drawn


def _where(of: Results | Path | str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that identify the study of results and its ledger."""
    results = of if isinstance(of, Results) else load_results(of)
    about = results.about
    if results.folder is None:
        raise InputError("figures(): these results are of no folder; give the folder, such as 'results/demo'")
    folder = results.folder.resolve()
    home = next(
        (one for one in (folder, *folder.parents) if one.name == about.name), folder
    )  # older reports are in subfolders
    where = {"dataset": about.dataset, "name": about.name, "results": home.parent}
    if given.get("storage"):
        return where
    if not (home / "study.db").is_file():
        raise InputError(f"{home}: there is no study.db in it; say where the ledger is with storage=…")
    return {**where, "storage": f"sqlite:///{home / 'study.db'}"}


def _arguments(command: ModuleType, given: Mapping[str, Any]) -> argparse.Namespace:
    """Parse the arguments of a command. If it runs nothing, add the recorded options.

    Raises:
        InputError: An argument is unknown, or its value cannot be used.
    """
    for name in given:
        if name not in _OPTIONS:
            flags = [option.flag for option in _OPTIONS.values()]
            raise InputError(f"there is no argument {name!r}{did_you_mean([f'--{name}'], flags)}")
    words = [word for name, value in given.items() for word in _words(_OPTIONS[name], value)]
    prog = f"cemobam {command.__name__.rpartition('.')[2]}"
    parser = command.build_parser(prog)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            args: argparse.Namespace = parser.parse_args(words)
    except SystemExit:
        message = re.sub(rf"^{prog}: error: (argument )?| \(see {prog} --help\)$", "", said.getvalue().strip())
        raise InputError(message) from None
    if args.report_only:
        from study.commands.recall import recalled  # noqa: PLC0415

        args = recalled(parser, words, args)
    return args


def _words(option: Option, value: Any) -> list[str]:
    """Return the words of a command line that give an option a Python value."""
    if value is None:
        return []
    if option.action == "store_true":
        if not isinstance(value, bool):
            raise InputError(f"{option.name}={value!r}: give True or False")
        return [option.flag] if value else []
    if option.action == "append":
        if isinstance(value, Mapping):
            return [f"{option.flag}={name}={_text(one)}" for name, one in value.items()]
        return [f"{option.flag}={one}" for one in ([value] if isinstance(value, str) else value)]
    text = _text(value)
    if option.name == "seeds" and not isinstance(value, str | int) and "," not in text:
        text += ","  # one seed, and not how many
    return [f"{option.flag}={text}"]


def _text(value: Any) -> str:
    """Return a value as the command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Iterable) and not isinstance(value, str | Path):
        return ",".join(map(_text, value))
    return str(value)


run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in [*((o.name, o.default) for o in _OPTIONS.values()), ("print_report", False)]
    ],
    return_annotation=Results,
)
"""The signature with every option, so that notebooks complete and show the names of arguments."""

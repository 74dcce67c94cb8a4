"""The Optuna dashboard on a ledger, served to a browser."""

from __future__ import annotations

import gc
import logging
import socket
import sys
from collections.abc import Callable, Container, Iterable, Mapping
from functools import cached_property, wraps
from typing import Any

from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, _CachedStorage
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from cemobam_core.extras import require
from cemobam_core.metrics import METRICS as SCORES
from study.ledger.checked import PREDICTED
from study.ledger.ledger import BLOCK, FACTS, OPTIONS, UTTERANCES, taken_apart
from study.ledger.storages.faults import LedgerFailed, told
from study.output.listener import listener
from study.output.same_site import SameSite

try:
    from bottle import HTTPError  # type: ignore[import-untyped]
    from optuna_dashboard import wsgi
    from optuna_dashboard._note import note_str_key_prefix, note_ver_key
    from waitress.server import BaseWSGIServer, MultiSocketServer, create_server
except ModuleNotFoundError:
    require("dashboard", "study.output.dashboard")
    raise


_LARGEST_REQUEST = 2**18
"""The most bytes that a request may send. The dashboard reads 100 KB at most, and waitress puts a request of more than
512 KB into a file before anyone can refuse it."""

_MANY = 1000
"""The most trials of a study for which the dashboard has learning curves and notes of single trials.

The front page draws a line for each curve: a browser takes two minutes for 10,000, and eight seconds without them. To
find the note of a trial, the dashboard reads all notes of its study.
"""


class _RenamedWhole(BaseStorage):
    """A storage whose studies keep their list of utterances when they are renamed.

    To rename a study, the dashboard copies its trials and its user attributes. The list of utterances is a system
    attribute, so this class reads and writes it as if it were a user attribute.
    """

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the user attributes and the list of utterances."""
        listed = self.get_study_system_attrs(study_id)
        return {**super().get_study_user_attrs(study_id), **_of_utterances(listed)}  # type: ignore[safe-super]

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set a user attribute, or a part of the list of utterances."""
        if _of_utterances({key: value}):
            self.set_study_system_attr(study_id, key, value)
        else:
            super().set_study_user_attr(study_id, key, value)  # type: ignore[safe-super]


def _of_utterances(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name.startswith(UTTERANCES)}


class LeanJournal(_RenamedWhole, JournalStorage):
    """A journal file for the dashboard, see :func:`for_readers`."""

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return the studies for the pages."""
        return for_readers(self, super().get_all_studies())

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials without predictions, which the file keeps."""
        return without_predictions(super().get_all_trials(study_id, deepcopy, states))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return the trial without predictions, which the file keeps."""
        (trial,) = without_predictions([super().get_trial(trial_id)])
        return trial

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial. A copy, which renaming a study makes, keeps its predictions."""
        return super().create_new_trial(study_id, _whole(template_trial, self._unforgetting))

    @cached_property
    def _unforgetting(self) -> JournalStorage:
        """The same file with predictions, read when a study is renamed."""
        return JournalStorage(self._backend)


class LeanStorage(_RenamedWhole, _CachedStorage):
    """A database for the dashboard, see :func:`for_readers`.

    Its cache has no predictions, and no learning curves where a study has many trials.
    """

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return the studies for the pages."""
        return for_readers(self, super().get_all_studies())

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials, without learning curves if there are many. The database keeps the curves."""
        trials = super().get_all_trials(study_id, deepcopy, states)
        if len(trials) > _MANY:
            for trial in trials:
                trial.intermediate_values = {}
        return trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return the trial without predictions, which the database keeps."""
        (trial,) = without_predictions([super().get_trial(trial_id)])
        return trial

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial. A copy, which renaming a study makes, keeps its predictions."""
        return super().create_new_trial(study_id, _whole(template_trial, self._backend))

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        super()._add_trials_to_cache(study_id, without_predictions(trials))


def without_predictions(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Remove the predictions of trials, which no page shows, and return the trials."""
    for trial in trials:
        if trial.system_attrs:
            kept = trial.system_attrs.items()
            trial.system_attrs = {name: value for name, value in kept if not name.startswith(PREDICTED)}
    return trials


def _whole(trial: FrozenTrial | None, storage: BaseStorage) -> FrozenTrial | None:
    """Return a trial with everything in the ledger. A new trial is returned unchanged."""
    return trial if trial is None or trial._trial_id < 0 else storage.get_trial(trial._trial_id)


def for_readers(storage: BaseStorage, studies: Iterable[FrozenStudy]) -> list[FrozenStudy]:
    """Return the studies for the pages of the dashboard, without changing the ledger.

    The home page shows the studies in the opposite order, so the first block comes last here. A trial's page begins
    with its note and ends with its metrics, so a trial without a note gets one with its metrics. Attributes that only
    commands read are left out, so that the explanation of the "Best Trial" stands beside it.

    Args:
        storage: The ledger.
        studies: The studies of the ledger. This function changes them.
    """
    studies = list(studies)
    for study in studies:
        if FACTS not in study.user_attrs:  # a study of another program in the same storage
            continue
        study.user_attrs = {
            name: value for name, value in study.user_attrs.items() if name not in (FACTS, OPTIONS, BLOCK)
        }
        trials = storage.get_all_trials(study._study_id, deepcopy=False)
        if len(trials) <= _MANY:
            study.system_attrs = {**_notes(trials), **study.system_attrs}
    return _last_first(studies)


def serve(storage: BaseStorage, *, url: str, host: str, port: int | None, read_only: bool = False) -> None:
    """Serve the dashboard until Ctrl-C.

    Args:
        storage: The ledger.
        url: Its URL.
        host: The address to listen at. A warning is printed if other machines can reach it.
        port: The port. `None` for the first free one from 8080.
        read_only: Whether every request that could change a study is refused.

    Raises:
        InputError: This machine has no such address, or the port is taken.
    """
    listening = listener(host, port)
    print("Reading the ledger …", flush=True)
    server = make_server(storage, listening, url=url, host=host, read_only=read_only)
    bound = listening.getsockname()
    at = socket.gethostname() if bound[0] in ("0.0.0.0", "::") else bound[0]
    address = f"[{at}]" if ":" in at else at
    print(f"The dashboard is at http://{address}:{bound[1]}/  (press Ctrl-C to stop it)", flush=True)
    if not bound[0].startswith("127.") and bound[0] != "::1":
        can = "read the studies" if read_only else "read, change and delete the studies"
        print(
            f"--host {host}: anyone who can reach this port can {can}. Without --host, "
            "only this machine can; use an SSH tunnel to reach it from elsewhere",
            file=sys.stderr,
        )
    try:
        server.run()  # Ctrl-C stops it without a message
    finally:
        server.close()


def make_server(
    storage: BaseStorage, listener: socket.socket, *, url: str, host: str, read_only: bool = False
) -> BaseWSGIServer | MultiSocketServer:
    """Read the ledger, and return a server of its dashboard that does not run yet.

    Args:
        storage: The ledger.
        url: Its URL.
        listener: The socket at which the server listens.
        host: The name or address that the user gave for it.
        read_only: Whether every request that could change a study is refused.
    """
    database = getattr(storage, "_backend", storage)
    if isinstance(database, RDBStorage):
        storage = LeanStorage(database)
    elif isinstance(storage, JournalStorage):
        storage = LeanJournal(storage._backend)
    _read_once(storage)
    _explain_failures(storage, url)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a browser sends many requests at once, which may wait
    address, listening = listener.getsockname()[:2]
    application = SameSite(wsgi(storage), host=host, address=address, port=listening, read_only=read_only)
    return create_server(application, sockets=[listener], threads=8, max_request_body_size=_LARGEST_REQUEST)


def _last_first(studies: Iterable[FrozenStudy]) -> list[FrozenStudy]:
    """Return the studies grouped by name and tag, oldest first, with the blocks of a group from last to first."""
    groups: dict[tuple[str, str], list[FrozenStudy]] = {}
    for study in sorted(studies, key=lambda study: study._study_id):
        name, _, tag = taken_apart(study.study_name)
        groups.setdefault((name, tag), []).append(study)
    return [study for group in groups.values() for study in reversed(group)]


def _notes(trials: Iterable[FrozenTrial]) -> dict[str, Any]:
    """Return the notes of trials as the dashboard stores them. Version 0 lets a note of the user replace them."""
    notes: dict[str, Any] = {}
    for trial in trials:
        if trial.state.is_finished():
            notes[note_ver_key(trial._trial_id)] = 0
            notes[f"{note_str_key_prefix(trial._trial_id)}0"] = _note(trial)
    return notes


def _note(trial: FrozenTrial) -> str:
    """Return a trial's parameters and its metrics in percent."""
    parameters = ", ".join(f"{name} **{value}**" for name, value in trial.params.items())
    reached = trial.user_attrs
    if trial.state != TrialState.COMPLETE:
        return f"{parameters}\n\nFailed: {reached.get('reason', 'no reason is recorded')}"
    known = {name: metric.label for name, metric in SCORES.items() if f"test_{name}" in reached}
    heads = "".join(f"&emsp;{label} |" for label in (*known.values(), "loss"))  # the dashboard leaves no room
    rows = [f"| |{heads}", "|---|" + "--:|" * (len(known) + 1)]
    for split, name in (("test", "test"), ("val", "validation"), ("train", "train")):
        cells = [f"{100 * reached[f'{split}_{measure}']:.2f}" for measure in known]
        cells.append(f"{reached[f'{split}_loss']:.3f}")
        rows.append(f"| {name} |" + "".join(f"&emsp;{cell} |" for cell in cells))
    return parameters + "\n\n" + "\n".join(rows)


def _explain_failures(storage: BaseStorage, url: str) -> None:
    """Make the pages and the terminal say in one line what is wrong when the ledger fails while it is served.

    Args:
        storage: The ledger. This function changes it.
        url: Its URL.
    """
    printed: set[str] = set()

    def explained(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def called(*arguments: Any, **named: Any) -> Any:
            try:
                with told(url):
                    try:
                        return method(*arguments, **named)
                    except (KeyError, DuplicatedStudyError) as error:  # the dashboard's own answers to a wrong request
                        usual = error
            except LedgerFailed as failure:
                if str(failure) not in printed:
                    printed.add(str(failure))
                    print(f"error: {failure}", file=sys.stderr, flush=True)
                raise HTTPError(500, str(failure)) from None
            raise usual

        return called

    for name in BaseStorage.__abstractmethods__:
        setattr(storage, name, explained(getattr(storage, name)))


def _read_once(storage: BaseStorage) -> None:
    """Read all trials into the storage's cache before the first page needs them.

    Garbage collection is off meanwhile: for 10,000 trials it takes half of the time.
    """
    gc.disable()
    try:
        for study in storage.get_all_studies():
            storage.get_all_trials(study._study_id, deepcopy=False)
    finally:
        gc.enable()
        gc.freeze()

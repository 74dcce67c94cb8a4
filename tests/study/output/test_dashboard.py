"""What the dashboard shows of a study, and the server."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import numpy as np
import optuna
import optuna_dashboard
import pytest
from invented import FakeEngine, invented
from matplotlib.colors import to_rgb
from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._note import get_note_from_system_attrs, save_note_with_version
from predicting import some_utterances
from runs import PATIENCE_S, ended, start_cemobam

from study.commands import cemobam
from study.commands.retyped import dashboard_as_typed
from study.commands.run import build_parser as run_parser
from study.design.configuration import Trial
from study.design.design import ANY_PAIR
from study.driver import Plan, StudyRun
from study.findings.evidence import Evidence
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Outcome, StudyFacts
from study.ledger.packing import packed
from study.output import dashboard, publishing
from study.output.figures.heat import contrast
from study.output.publishing import Publisher, publish, publish_report
from study.output.report import block_tables, make_report

Make = Callable[..., Ledger]
PLOTS = {
    "grid": {"grid", "learning-curves"},
    "fusion": {"fusion", "learning-curves"},
    "ablation": {"ablation", "learning-curves"},
    "gaps": {"gaps"},
}


def shown(study: optuna.Study | None) -> dict[str, Any]:
    """The figures that the dashboard would draw, parsed as strictly as a browser does."""
    assert study is not None

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    figures = get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))
    return {name: json.loads(text, parse_constant=refuse) for name, text in figures.items()}


def note_of(ledger: Ledger, block: str) -> str:
    study = ledger.optuna_study(block)
    assert study is not None
    return get_note(study)


def published_study(plan: Plan, ledger: Ledger, facts: StudyFacts, folder: Path) -> StudyRun:
    run = StudyRun(plan, ledger, facts)
    run.run(FakeEngine(), lambda *_: None)
    evidence = Evidence.of(run, name="demo", models=folder)
    publish_report(run, make_report(evidence, again="python run_grid.py --seeds 2"))
    return run


def test_every_block_has_its_figures_and_a_note(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path
) -> None:
    ledger = make_ledger()
    blocks = ("grid", "fusion", "ablation", "gaps")
    run = published_study(replace(plan, blocks=blocks), ledger, facts, tmp_path)
    for block in blocks:
        assert set(shown(ledger.optuna_study(block))) == PLOTS[block]
        note = note_of(ledger, block)
        done = len(run.trials(block))
        assert f"{done} of {done} trials of this block are done" in note
        for part in ("undecided", "K_audio = 2, K_text = 1", "epochs **2**", "    python run_grid.py --seeds 2"):
            assert part in note
    assert "MEAN" in note_of(ledger, "fusion")
    assert "w/o CH-GAT" in note_of(ledger, "ablation")
    assert "unchanged" in note_of(ledger, "gaps")


def test_the_heatmap_has_the_grids_numbers(make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path) -> None:
    ledger = make_ledger()
    run = published_study(plan, ledger, facts, tmp_path)
    figure = shown(ledger.optuna_study("grid"))["grid"]
    wa, numbers, ua, *_ = figure["data"]
    assert (wa["visible"], ua["visible"]) == (True, False)
    assert (wa["x"], wa["y"]) == (["1", "2"], ["1", "2", "3"])
    grid = Evidence.of(run, name="demo", models=tmp_path).results.grid
    for i, k_text in enumerate((1, 2, 3)):
        for j, k_audio in enumerate((1, 2)):
            row = grid[(grid["k_audio"] == k_audio) & (grid["k_text"] == k_text)].iloc[0]
            assert wa["z"][i][j] == pytest.approx(100 * row["test_wa_mean"], abs=0.006)
            assert wa["customdata"][i][j].endswith("2 seeds")
    highest = grid["test_wa_mean"].max()
    assert sum("★" in cell for cell in numbers["text"]) == (grid["test_wa_mean"] > highest - 1e-9).sum()
    assert f'<span style="color:{figure["layout"]["shapes"][1]["line"]["color"]}">□</span>' in json.dumps(
        figure["layout"]["title"], ensure_ascii=False
    ).replace('\\"', '"')
    subtitle = figure["layout"]["title"]["subtitle"]["text"]
    assert subtitle.startswith("Each cell is the mean score on the test split")
    assert subtitle.endswith("chosen on validation: 2,1; ★ highest")
    assert {trace["zmin"] for trace in figure["data"][::2]} == {wa["zmin"]}  # one scale for all metrics
    frame = figure["layout"]["shapes"][0]  # K 2,1
    assert (frame["x0"], frame["x1"], frame["y0"], frame["y1"]) == (0.5, 1.5, -0.5, 0.5)


def test_numbers_on_the_heatmap_can_be_read(make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path) -> None:
    """Each in an ink of its own: a heatmap's text has one colour for all cells."""
    ledger = make_ledger()
    published_study(plan, ledger, facts, tmp_path)
    heat, numbers = shown(ledger.optuna_study("grid"))["grid"]["data"][:2]
    assert (heat["type"], numbers["type"]) == ("heatmap", "scatter")
    stops, colours = zip(*heat["colorscale"], strict=True)
    channels = np.array([to_rgb(colour) for colour in colours]).T
    inks = set()
    for x, y, colour in zip(numbers["x"], numbers["y"], numbers["textfont"]["color"], strict=True):
        z = heat["z"][heat["y"].index(y)][heat["x"].index(x)]
        share = (z - heat["zmin"]) / (heat["zmax"] - heat["zmin"])
        assert contrast(to_rgb(colour), [np.interp(share, stops, channel) for channel in channels]) >= 4.5
        inks.add(colour)
    assert inks == {"black", "white"}


def test_figures_stay_between_0_and_100_and_two_seeds_have_no_interval(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path
) -> None:
    ledger = make_ledger()
    published_study(plan, ledger, facts, tmp_path)
    figures = shown(ledger.optuna_study("fusion"))
    assert figures["learning-curves"]["layout"]["yaxis"]["autorangeoptions"] == {"clipmin": 0, "clipmax": 100}
    low, high = figures["fusion"]["layout"]["yaxis"]["range"]
    assert 0 <= low < high <= 100
    for figure in figures.values():
        assert "95%" not in figure["layout"]["title"]["subtitle"]["text"]
        for trace in figure["data"]:
            assert trace.get("fill") != "toself"
            if trace.get("error_y", {}).get("visible", True) and "error_y" in trace:
                assert trace["y"] == [None] * len(trace["y"])


@pytest.mark.parametrize("keep", [0, 1, 7, 11])
def test_a_study_that_has_begun_shows_how_far_it_is(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path, keep: int
) -> None:
    for trial in StudyRun(plan, make_ledger(), facts).trials("grid")[:keep]:
        make_ledger().record(plan.design.blocks["grid"], trial, invented(trial))
    ledger = make_ledger()
    run = StudyRun(plan, ledger, facts)
    evidence = Evidence.of(run, name="demo", models=tmp_path)
    publish(run, evidence, block_tables(evidence), again="again")
    if keep == 0:
        assert ledger.optuna_study("grid") is None
        return
    note, figures = note_of(ledger, "grid"), shown(ledger.optuna_study("grid"))
    assert f"{keep} of 12 trials of this block are done" in note
    assert "claims" not in note
    assert f"{keep} of 12 so far" in figures["grid"]["layout"]["title"]["subtitle"]["text"]
    assert "no K pair is chosen yet" in figures["learning-curves"]["layout"]["title"]["subtitle"]["text"]
    holes = sum(cell is None for row in figures["grid"]["data"][0]["z"] for cell in row)
    assert holes == max(0, 6 - keep)
    assert ledger.optuna_study("fusion") is None


def test_figures_are_replaced_and_what_a_user_wrote_stays(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path
) -> None:
    ledger = make_ledger()
    run = published_study(plan, ledger, facts, tmp_path)
    study = ledger.optuna_study("grid")
    assert study is not None
    before = get_note(study)
    save_note(study, "My own words, with | and *this*.\n\n" + before.replace("12 of 12", "11 of 12"))
    evidence = Evidence.of(run, name="demo", models=tmp_path)
    report = make_report(evidence, again="python run_grid.py --seeds 2")
    publish_report(run, report)
    assert get_note(study) == "My own words, with | and *this*.\n\n" + before
    attributes = study._storage.get_study_system_attrs(study._study_id)
    publish_report(run, report)
    assert study._storage.get_study_system_attrs(study._study_id) == attributes  # the note's version among them
    assert set(shown(study)) == PLOTS["grid"]


def test_hostile_names_stay_text(make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path) -> None:
    ledger = make_ledger()
    nasty = replace(facts, title="<img src=x onerror=alert(1)> | `a` [b](javascript:c)")
    ledger.open(nasty)
    published_study(plan, ledger, nasty, tmp_path)
    assert "<img" not in json.dumps(shown(ledger.optuna_study("grid")))
    note = note_of(ledger, "grid")
    assert "<img" not in note.replace("\\<img", "")
    assert "[b](" not in note


def test_publishing_is_rationed(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most every 30 s, and when it takes 3 s, no sooner than 50 times as long after."""
    now, cost, published = 1000.0, 0.1, 0

    def work(*_: object, **__: object) -> None:
        nonlocal now, published
        now += cost
        published += 1

    monkeypatch.setattr(publishing.time, "monotonic", lambda: now)
    monkeypatch.setattr(publishing, "publish", work)
    publisher = Publisher(StudyRun(plan, make_ledger(), facts), name="demo", models=tmp_path, again="again")
    for _ in range(1000):
        publisher.on_outcome()
        now += 0.1
    assert published == 3  # 100 s
    now, cost, published = 5000.0, 3.0, 0
    for _ in range(3100):
        publisher.on_outcome()
        now += 0.1
    assert published == 3  # 319 s
    assert published * cost / 319 < 0.03


def test_a_storage_that_refuses_costs_no_trial(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def refuse(*_: object, **__: object) -> None:
        raise optuna.exceptions.StorageInternalError("database or disk is full\nand more")

    monkeypatch.setattr(publishing, "save_plotly_graph_object", refuse)
    published_study(plan, make_ledger(), facts, tmp_path)
    assert "were not updated: " in caplog.text and "database or disk is full" in caplog.text
    assert "and more" not in caplog.text


def test_of_many_trials_the_curves_are_left_out_of_the_browser_alone(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_study(plan, make_ledger(), facts, tmp_path)
    storage = dashboard.LeanStorage(optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}"))
    assert all(trial.intermediate_values for trial in storage.get_all_trials(1))
    monkeypatch.setattr(dashboard, "_MANY", 11)
    assert not any(trial.intermediate_values for trial in storage.get_all_trials(1))
    assert all(trial.intermediate_values for trial in storage.get_all_trials(2))  # 8 of them
    assert all(outcome.curve for outcome in make_ledger().new_outcomes("grid").values())


@pytest.mark.parametrize("kind", ["sqlite:///{}/study.db", "journal:///{}/study.journal"])
def test_pages_begin_with_what_matters(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grid first on the home page, a trial's scores on top of its page, and what "Best Trial" is beside it."""
    ledger = make_ledger(kind.format(tmp_path))
    published_study(plan, ledger, facts, tmp_path)
    inner = ledger.storage
    database = getattr(inner, "_backend", inner)
    storage = (dashboard.LeanJournal if kind.startswith("journal") else dashboard.LeanStorage)(database)
    studies = storage.get_all_studies()
    assert [study.study_name for study in studies] == ["demo/ablation", "demo/fusion", "demo/grid"]
    theirs = optuna.create_study(study_name="another tool's", storage=inner)
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert len(storage.get_all_studies()) == 4
    grid = studies[-1]
    assert grid.user_attrs == {
        "Best Trial": "one trial with the best validation WA, partly by chance",
        "Answer": "K 2,1 has the best mean over seeds; see the note",
    }
    assert studies[0].user_attrs["Answer"] == "see the means over seeds in the note"
    trial = storage.get_all_trials(grid._study_id)[3]
    note = get_note_from_system_attrs(grid.system_attrs, trial._trial_id)
    assert note["version"] == 0
    assert f"k_audio **{trial.params['k_audio']}**" in note["body"]
    assert f"| test |&emsp;{100 * trial.user_attrs['test_wa']:.2f} |" in note["body"]
    # What a user writes takes its place; nothing of ours is written into the ledger.
    save_note_with_version(storage, grid._study_id, trial._trial_id, 1, "my own")
    again = {study.study_name: study for study in storage.get_all_studies()}["demo/grid"]
    assert get_note_from_system_attrs(again.system_attrs, trial._trial_id)["body"] == "my own"
    assert sum(key.endswith("note_ver") for key in storage.get_study_system_attrs(grid._study_id)) == 2
    monkeypatch.setattr(dashboard, "_MANY", 11)
    many = {study.study_name: study for study in storage.get_all_studies()}["demo/grid"]
    assert get_note_from_system_attrs(many.system_attrs, trial._trial_id)["body"] == "my own"
    assert sum(key.endswith("note_ver") for key in many.system_attrs) == 2


KINDS = {"sqlite": dashboard.LeanStorage, "journal": dashboard.LeanJournal}


@pytest.fixture(params=KINDS)
def browsed(
    request: pytest.FixtureRequest, make_ledger: Make, facts: StudyFacts, tmp_path: Path
) -> tuple[Any, Ledger, str]:
    """The ledger of a study with predictions, and the storage as which the dashboard reads it."""
    url = f"{request.param}:///{tmp_path / 'study'}"
    ledger = make_ledger(url)
    ledger.open(facts, some_utterances())
    inner = ledger.storage
    return KINDS[request.param](getattr(inner, "_backend", inner)), ledger, url


def with_predictions(trial: Trial) -> Outcome:
    return replace(invented(trial), predicted=bytes([trial.seed] * 60))


def asked(storage: Any, path: str, **told: str) -> str:
    """What the dashboard answers; to a question with content, to a POST."""
    app = optuna_dashboard.wsgi(storage)
    body = json.dumps(told).encode()
    environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": "after=0", "CONTENT_TYPE": "application/json"}
    if told:
        environ |= {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    answer = b"".join(app(environ, lambda status, *_: statuses.append(status))).decode()
    assert statuses[0][:1] == "2", (path, statuses, answer)
    return answer


PREDICTED = [part for seed in (0, 1) for part in packed("x", bytes([seed] * 60)).values()]


def test_no_answer_of_the_dashboard_holds_predictions(
    browsed: tuple[Any, Ledger, str], plan: Plan, facts: StudyFacts, tmp_path: Path
) -> None:
    storage, ledger, _ = browsed
    block = plan.design.blocks["grid"]
    first, *others = plan.design.trials("grid", ANY_PAIR)
    ledger.record(block, first, with_predictions(first))
    number = ledger.storage.get_study_id_from_name("demo/grid")
    (alone,) = storage.get_all_trials(number)
    assert alone.system_attrs == {}
    for trial in others:  # while it is served
        ledger.record(block, trial, with_predictions(trial))
    run = StudyRun(plan, ledger, facts)
    publish_report(run, make_report(Evidence.of(run, name="demo", models=tmp_path), again="again"))
    theirs = ledger.storage.get_all_trials(number)
    assert all(list(trial.system_attrs) == ["cemobam:predicted:0"] for trial in theirs)
    assert not any(trial.system_attrs for trial in storage.get_all_trials(number, deepcopy=False))
    assert not storage.get_trial(theirs[3]._trial_id).system_attrs
    assert not storage.get_best_trial(number).system_attrs
    pages = ["/api/meta", "/api/studies", f"/api/studies/{number}", f"/csv/{number}"]
    pages += [f"/api/studies/{number}/param_importances"]
    for page in pages:
        answer = asked(storage, page)
        assert answer
        for unwanted in ("cemobam:", "u001", *PREDICTED):
            assert unwanted not in answer, (page, unwanted)
    ours = {trial.number: trial for trial in storage.get_all_trials(number)}
    for trial in theirs:  # and all the rest is there
        for name in ("params", "user_attrs", "values", "intermediate_values"):
            assert getattr(ours[trial.number], name) == getattr(trial, name)


def test_a_study_renamed_in_the_dashboard_loses_nothing(
    browsed: tuple[Any, Ledger, str], plan: Plan, facts: StudyFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, ledger, url = browsed
    trials = plan.design.trials("grid", ANY_PAIR)
    for trial in trials:
        ledger.record(plan.design.blocks["grid"], trial, with_predictions(trial))
    number = ledger.storage.get_study_id_from_name("demo/grid")
    monkeypatch.setattr(dashboard, "_MANY", 3)  # so that it forgets curves too
    storage.get_all_trials(number, deepcopy=False)
    asked(storage, f"/api/studies/{number}/rename", study_name="mine/grid")
    renamed = Ledger(url, name="mine")
    assert renamed.utterances() == some_utterances()
    assert renamed.new_outcomes("grid") == {
        trial.signature(facts.fingerprint): with_predictions(trial) for trial in trials
    }


def test_a_failed_trial_says_why_on_its_page(make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path) -> None:
    ledger = make_ledger()
    run = StudyRun(plan, ledger, facts)
    run.run(FakeEngine(fails=lambda trial: trial.seed == 1), lambda *_: None)
    storage = dashboard.LeanStorage(ledger.storage)
    (grid,) = storage.get_all_studies()
    failed = next(trial for trial in storage.get_all_trials(grid._study_id) if trial.params["seed"] == 1)
    note = get_note_from_system_attrs(grid.system_attrs, failed._trial_id)["body"]
    assert note.endswith("seed **1**\n\nFailed: ValueError: told to")


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ("", "cemobam dashboard --dataset demo"),
        ("--dataset iemocap --epochs 3 --seeds 2", "cemobam dashboard --dataset iemocap"),
        ("--name mine --results out", "cemobam dashboard --results out --name mine"),
        ("--storage postgresql://me:secret@db/x", "cemobam dashboard --storage 'postgresql://me:***@db/x'"),
    ],
)
def test_the_command_that_finds_a_study(given: str, command: str) -> None:
    assert dashboard_as_typed(run_parser().parse_args(given.split())) == command


@pytest.fixture
def serving(make_ledger: Make, plan: Plan, facts: StudyFacts, in_folder: Path) -> Callable[..., Any]:
    published_study(plan, make_ledger(), facts, in_folder)

    def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        process = start_cemobam("dashboard", "--storage", f"sqlite:///{in_folder / 'study.db'}", *arguments)
        assert process.stdout
        assert process.stdout.readline() == "Reading the ledger …\n"
        line = process.stdout.readline()
        address = re.search(r"http://\S+/", line)
        assert address, line + (process.communicate()[1] if not line else "")
        return process, address[0]

    return start


@pytest.mark.process
def test_a_ledger_that_breaks_while_it_is_served_is_told_in_one_line(
    serving: Callable[..., tuple[subprocess.Popen[str], str]], in_folder: Path
) -> None:
    process, address = serving("--port", "0")
    file = in_folder / "study.db"
    file.write_bytes(b"?" * file.stat().st_size)
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError) as answer:
            urllib.request.urlopen(f"{address}api/studies", timeout=PATIENCE_S)
        assert answer.value.code == 500
        reason = json.load(answer.value)["reason"]
        assert re.fullmatch(r".*study.db: this ledger is damaged .*cemobam doctor --storage .*", reason)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}no/such/page", timeout=PATIENCE_S)
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[1] == f"error: {reason}\n"


@pytest.mark.process
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "kill"])
def test_it_serves_on_this_machine_alone_and_ends_quietly(
    serving: Callable[..., tuple[subprocess.Popen[str], str]], ending: signal.Signals
) -> None:
    process, address = serving("--port", "0")
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{address}api/studies", timeout=PATIENCE_S) as answer:
        names = [study["study_name"] for study in json.load(answer)["study_summaries"]]
    assert names == ["demo/ablation", "demo/fusion", "demo/grid"]  # the page shows them from the last to the first
    port = int(address.rsplit(":", 1)[1].strip("/"))
    other = socket.gethostbyname(socket.gethostname())
    if not other.startswith("127."):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, port), timeout=10)
    process.send_signal(ending)
    assert ended(process) == ("", "")


@pytest.mark.process
def test_others_are_let_in_with_a_warning(serving: Callable[..., tuple[subprocess.Popen[str], str]]) -> None:
    process, address = serving("--port", "0", "--host", "0.0.0.0")
    assert socket.gethostname() in address
    port = int(address.rsplit(":", 1)[1].strip("/"))
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}/api/studies", timeout=PATIENCE_S
    ):  # it serves: it has said all
        pass
    process.send_signal(signal.SIGINT)
    _, err = ended(process)
    assert err.count("\n") == 1
    assert "change and delete" in err


@pytest.mark.process
def test_read_only_it_draws_nothing_and_lets_nobody_change_a_study(
    make_ledger: Make, plan: Plan, facts: StudyFacts, in_folder: Path
) -> None:
    StudyRun(plan, make_ledger(), facts).run(FakeEngine(), lambda *_: None)
    before = (in_folder / "study.db").read_bytes()
    process = start_cemobam("dashboard", "--storage", "sqlite:///study.db", "--read-only", "--port", "0")
    assert process.stdout
    said = [process.stdout.readline() for _ in range(2)]
    address = re.search(r"http://\S+/", said[1])
    assert address, said
    own = {"Origin": address[0].rstrip("/")}
    assert urllib.request.urlopen(f"{address[0]}api/studies/1", timeout=PATIENCE_S).status == 200
    delete = urllib.request.Request(f"{address[0]}api/studies/1", method="DELETE", headers=own)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(delete, timeout=PATIENCE_S)
    process.send_signal(signal.SIGINT)
    assert ended(process) == ("", "")
    assert (in_folder / "study.db").read_bytes() == before
    assert [path.name for path in in_folder.iterdir()] == ["study.db"]


def test_mistakes_are_told_in_one_line(
    make_ledger: Make, plan: Plan, facts: StudyFacts, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert cemobam(["dashboard", *arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        return said.err

    assert "there is no ledger" in refused("--dataset", "iemocap")
    assert not (in_folder / "results").exists()
    published_study(plan, make_ledger(), facts, in_folder)
    storage = f"sqlite:///{in_folder / 'study.db'}"
    assert "no study 'esd'; it has demo" in refused("--storage", storage, "--name", "esd")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "another program uses this port" in refused("--storage", storage, "--port", str(taken.getsockname()[1]))
    assert "no such address" in refused("--storage", storage, "--host", "nowhere.invalid")
    with pytest.raises(SystemExit) as stopped:
        cemobam(["dashboard", "--port", "70000"])
    assert stopped.value.code == 2
    assert "is not a port" in capsys.readouterr().err
    wrong = "postgresql://me:secret@127.0.0.1:1/x"
    assert "secret" not in refused("--storage", wrong)
    assert [path.name for path in in_folder.iterdir()] == ["study.db"]

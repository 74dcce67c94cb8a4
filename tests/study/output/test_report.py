"""The report, as a file and in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from invented import FakeEngine, demo_facts, demo_plan, invented
from matplotlib.image import imread

from study.design.configuration import Trial
from study.driver import Plan, StudyRun
from study.findings.evidence import Evidence
from study.ledger.ledger import Ledger
from study.ledger.outcomes import Outcome, StudyFacts
from study.output.report import Report, make_report

Make = Callable[..., Ledger]
HOSTILE = "<script>alert('x')</script> | `rm` \\input{x} \x07 & \"quoted\""


def report_of(
    plan: Plan, ledger: Ledger, facts: StudyFacts, tmp_path: Path, fails: Callable[[Trial], bool] = lambda _: False
) -> Report:
    run = StudyRun(plan, ledger, facts)
    run.run(FakeEngine(fails=fails), lambda *_: None)
    evidence = Evidence.of(run, name="demo", models=tmp_path / "models")
    return make_report(evidence, again="python run_grid.py --name demo")


class _Page(HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_file_with_the_answer_first(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path
) -> None:
    report = report_of(plan, make_ledger(), facts, tmp_path)
    report.write(tmp_path / "results", tmp_path / "plots")
    text = (tmp_path / "results/report.html").read_text()
    page = _Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    assert len([source for source in page.sources if source.startswith("data:image/png")]) == len(report.figures)
    order = [text.index(f'id="{name}"') for name in ("claims", "figures", "tables", "settings", "again")]
    assert order == sorted(order)
    assert "about the demo data alone" in text[: order[0]]
    for claim in report.claims:
        assert claim.verdict in text
    markdown = (tmp_path / "results/report.md").read_text()
    for link in re.findall(r"!\[[^]]*\]\(([^)]*)\)", markdown):
        assert (tmp_path / "results" / link).resolve().is_file()
    assert "python run_grid.py --name demo" in markdown


def test_what_failed_or_is_not_run_is_said_and_nothing_breaks(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path
) -> None:
    report = report_of(
        replace(plan, blocks=("grid",)),
        make_ledger(),
        facts,
        tmp_path,
        fails=lambda t: t.configuration.get("k_text") == 3,
    )
    report.write(tmp_path / "results", tmp_path / "plots")
    text = (tmp_path / "results/report.html").read_text()
    assert "8 of 12 trials done, 4 failed" in text
    assert "Failed trials" in text
    assert "ValueError: told to" in text
    assert "Ablation, every seed" not in text  # it was not asked for
    assert "Left out, because not complete: K_text 3." in " ".join(report.tables["variance"].notes)
    assert "table1" not in report.tables
    assert set(report.figures) == {"topk", "topk-sd", "marginal", "curves", "errors"}
    assert "confusion matrix" in " ".join(report.missing.values())


@pytest.mark.parametrize("keep", range(0, 12, 2))
def test_a_ledger_cut_off_anywhere_is_reported_as_far_as_it_goes(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path, keep: int
) -> None:
    ledger = make_ledger()
    for trial in StudyRun(plan, ledger, facts).trials("grid")[:keep]:
        ledger.record(plan.design.blocks["grid"], trial, invented(trial))
    evidence = Evidence.of(StudyRun(plan, make_ledger(), facts), name="demo", models=tmp_path)
    report = make_report(evidence, again="again")
    report.write(tmp_path / "results", tmp_path / "plots")
    assert f"{keep} of 24 trials done, {24 - keep} not run yet" in (tmp_path / "results/report.html").read_text()
    assert len(pd.read_csv(tmp_path / "results/claims.csv")) == 16


@pytest.mark.slow
def test_one_seed_has_no_intervals_and_says_so(
    make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path
) -> None:
    one = replace(plan, design=replace(plan.design, seeds=(0,)))
    report = report_of(one, make_ledger(), facts, tmp_path)
    report.write(tmp_path / "results", tmp_path / "plots")
    assert report.missing["topk-sd"] == "one seed has no standard deviation"
    assert "±" not in report.tables["table1"].markdown()
    assert {claim.verdict for claim in report.claims} == {"not tested"}


def test_two_seeds_have_no_interval_anywhere(make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path) -> None:
    report = report_of(plan, make_ledger(), facts, tmp_path)
    report.write(tmp_path / "results", tmp_path / "plots")
    grid = pd.read_csv(tmp_path / "results/grid.csv")
    assert grid[[c for c in grid if c.endswith(("_low", "_high"))]].isna().all(axis=None)
    interval = re.compile(r"\[[+−]?[\d.]+, [+−]?[\d.]+\]")
    for name in ("report.md", "claims.csv", "table1.md", "table2.md", "comparisons.md", "selection.md"):
        text = (tmp_path / "results" / name).read_text()
        assert not interval.search(text.replace("\\[", "[").replace("\\]", "]")), name
    assert not interval.search("\n".join(report.summary))
    assert "± half" not in (tmp_path / "results/report.html").read_text()


def hostile_report(make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path) -> Path:
    nasty = replace(facts, title=HOSTILE, class_names=(HOSTILE, "b", "c", "d"), made_with={HOSTILE: HOSTILE})

    def opened() -> Ledger:
        ledger = make_ledger()
        ledger.open(nasty)
        return ledger

    ledger = opened()
    run = StudyRun(plan, opened(), nasty)
    confusion = tuple(tuple(5 if i == j else 1 for j in range(4)) for i in range(4))
    for block in plan.blocks:
        for i, trial in enumerate(run.trials(block)):
            bad = Outcome(status="failed", seconds=0.0, device="cpu", reason=HOSTILE)
            ledger.record(
                plan.design.blocks[block], trial, bad if i == 3 else replace(invented(trial), confusion=confusion)
            )
        run = StudyRun(plan, opened(), nasty)
    evidence = Evidence.of(run, name="demo", models=tmp_path / "models")
    make_report(evidence, again=f"python run_grid.py --dataset '{HOSTILE}'").write(tmp_path / "r", tmp_path / "plots")
    return tmp_path / "r/report.html"


def test_hostile_names_and_reasons_stay_text(make_ledger: Make, plan: Plan, facts: StudyFacts, tmp_path: Path) -> None:
    path = hostile_report(make_ledger, plan, facts, tmp_path)
    page = _Page(path.read_text())
    assert "script" not in page.tags
    assert page.open == []
    assert r"\<script\>" in (path.parent / "report.md").read_text()
    assert "<script>" not in (path.parent / "report.md").read_text().replace(r"\<script\>", "").partition("## Again")[0]


@pytest.fixture(scope="module")
def shown(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The browser with a report of hostile names open."""
    folder = tmp_path_factory.mktemp("report")
    ledgers: Make = lambda: _opened(folder, demo_facts())  # noqa: E731
    browser.get("about:blank")
    for log in ("performance", "browser"):
        browser.get_log(log)  # what other tests left there
    browser.get(hostile_report(ledgers, demo_plan(), demo_facts(), folder).as_uri())
    return browser


def _opened(folder: Path, facts: StudyFacts) -> Ledger:
    ledger = Ledger(f"sqlite:///{folder / 'study.db'}", name="demo")
    ledger.open(facts)
    return ledger


def measured(browser: Any) -> tuple[int, list[bool], float]:
    """The page's width, whether each image is there, and how much of what is seen differs from white."""
    width = browser.execute_script("return document.documentElement.scrollWidth")
    there = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth > 100)")
    pixels = imread(io.BytesIO(browser.get_screenshot_as_png()))[..., :3]
    return width, there, float(pixels.std())


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_shows_it_whole_on_desk_and_phone_and_asks_nobody(shown: Any) -> None:
    for width in (1200, 390):
        shown.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 800},
        )
        page, images, spread = measured(shown)
        assert page <= width  # nobody scrolls sideways
        assert len(images) >= 6
        assert all(images)
        assert spread > 0.05  # something is drawn
    shown.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    events = [json.loads(entry["message"])["message"] for entry in shown.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked  # the page itself
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert shown.get_log("browser") == []


@pytest.mark.slow
@pytest.mark.browser
def test_it_prints(shown: Any) -> None:
    assert base64.b64decode(shown.print_page()).startswith(b"%PDF")

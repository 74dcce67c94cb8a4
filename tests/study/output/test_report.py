"""The report, as a file and in a browser."""

from __future__ import annotations

import base64
import hashlib
import html
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
from study.output.document import Document, Items, Section, Text
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
    assert page.tags.count("script") == 1
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    assert len([source for source in page.sources if source.startswith("data:image/png")]) == len(report.figures)
    order = [
        text.index(f'id="{name}"')
        for name in ("overview", "claims", "figures", "tables", "errors", "settings", "reproduce")
    ]
    assert order == sorted(order)
    assert "The answers hold for the demo data alone" in text[: order[0]]
    for claim in report.claims:
        answer = f"{claim.verdict.capitalize()}: {claim.answer}"
        assert answer in html.unescape(re.sub("K<sub>(.*?)</sub>", r"K_\1", text))
    markdown = (tmp_path / "results/report.md").read_text()
    for link in re.findall(r"!\[[^]]*\]\(([^)]*)\)", markdown):
        assert (tmp_path / "results" / link).resolve().is_file()
    assert "python run_grid.py --name demo" in markdown


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A report and the folder of its results."""
    folder = tmp_path_factory.mktemp("written")
    report = report_of(demo_plan(), _opened(folder, demo_facts()), demo_facts(), folder)
    report.write(folder / "results", folder / "plots")
    return report, folder / "results"


def test_sections_figures_and_tables_are_numbered_and_in_the_contents(written: tuple[Report, Path]) -> None:
    report, results = written
    text, markdown = ((results / f"report.{form}").read_text() for form in ("html", "md"))
    titles = [html.unescape(title) for title in re.findall(r"<h2>(.*?)</h2>", text)]
    assert [title.split(". ")[0] for title in titles] == [str(i + 1) for i in range(len(titles))]
    assert titles[:2] == ["1. Overview", "2. Do the paper's claims hold?"]
    assert titles[-1].endswith(". How to reproduce this")
    assert re.findall(r"^## (.*)$", markdown, flags=re.MULTILINE) == titles
    for label, number in (("Figure", len(report.figures)), ("Table", len(report.tables))):
        captions = re.findall(rf"<(?:caption|figcaption)><b>{label} (\d+):</b>", text)
        assert captions == [str(i + 1) for i in range(number)]
        assert re.findall(rf"^  - \[{label} (\d+): .*\]\(#", markdown, flags=re.MULTILINE) == captions
        assert re.findall(rf'<li><a href="#{label.lower()}-\d+">{label} (\d+):</a>', text) == captions


def test_every_link_leads_somewhere(written: tuple[Report, Path]) -> None:
    _, results = written
    text, markdown = ((results / f"report.{form}").read_text() for form in ("html", "md"))
    links = {"html": re.findall(r'href="#([^"]*)"', text), "md": re.findall(r"\]\(#([^)]*)\)", markdown)}
    for form, page in (("html", text), ("md", markdown)):
        anchors = re.findall(r' id="([^"]*)"', page)
        assert len(anchors) == len(set(anchors))
        assert len(links[form]) > 20
        assert set(links[form]) <= set(anchors)


def test_the_policy_allows_the_pages_one_script_and_no_other(written: tuple[Report, Path]) -> None:
    text = (written[1] / "report.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy == (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'")


def test_every_table_has_the_latex_of_its_file(written: tuple[Report, Path]) -> None:
    report, results = written
    text, markdown = ((results / f"report.{form}").read_text() for form in ("html", "md"))
    sources = re.findall(r'<pre id="latex-table-\d+">\n(.*?)</pre>', text, flags=re.DOTALL)
    files = {(results / f"{name}.tex").read_text() for name in report.tables}
    assert {html.unescape(source) for source in sources} == files
    assert len(sources) == len(files)
    assert set(re.findall(r"^```latex\n(.*?)^```$", markdown, flags=re.DOTALL | re.MULTILINE)) == files


def test_a_section_is_added_with_one_line() -> None:
    document = Document(
        "A study", "", [Section("a", "First", [Text("See K_audio.")]), Section("b", "Demo", [Items(("x",))])]
    )
    text = document.html()
    assert "<h2>2. Demo</h2>" in text
    assert '<a href="#b">2. Demo</a>' in text
    assert "See K<sub>audio</sub>." in text
    assert "## 2. Demo\n\n- x\n" in document.markdown()


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
    assert "Left out because not complete: K_text 3." in " ".join(report.tables["variance"].notes)
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
    interval = re.compile(r"\[[+−]?[\d.]+, [+−]?[\d.]+\]|[+−\d.]+ to [+−\d.]+")
    for name in ("report.md", "claims.csv", "table1.md", "table2.md", "comparisons.md", "selection.md"):
        text = (tmp_path / "results" / name).read_text()
        text = text.replace("K_audio 1 to 3 and K_text 4 to 9", "")  # of the demo's truths
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
    assert page.tags.count("script") == 1  # ours
    assert page.open == []
    assert r"\<script\>" in (path.parent / "report.md").read_text()
    assert (
        "<script>"
        not in (path.parent / "report.md").read_text().replace(r"\<script\>", "").rpartition("How to reproduce this")[0]
    )


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
def test_a_click_copies_the_latex_of_a_table(shown: Any) -> None:
    before, after, source = shown.execute_async_script(
        """
        const done = arguments[0], button = document.querySelector("button[data-source]"), before = button.textContent;
        button.closest("details").open = true;
        button.click();
        const source = document.getElementById(button.dataset.source);
        setTimeout(() => done([before, button.textContent, source.textContent]), 500);
        """
    )
    assert before == "Copy LaTeX"
    assert after in ("Copied", "Selected: press Ctrl+C")
    assert source.startswith(r"\begin{table")
    assert shown.get_log("browser") == []


@pytest.mark.slow
@pytest.mark.browser
def test_it_prints(shown: Any) -> None:
    assert base64.b64decode(shown.print_page()).startswith(b"%PDF")

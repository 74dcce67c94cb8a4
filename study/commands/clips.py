"""The options of a kept model that labels clips, and the labeller that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from study.commands.machine import device_type
from study.commands.options import DEVICE, MAKING
from study.commands.parsing import Option

if TYPE_CHECKING:
    from pathlib import Path

    from study.output.labelling import Labeller

_HELP = {
    "audio_encoder": "the new place of the model's audio encoder, if it was moved; another encoder is refused "
    "(default: where it was when the features were made, or the hub's cache)",
    "text_encoder": "the new place of the model's text encoder (default: as for --audio-encoder)",
    "asr": "transcribe clips with this Whisper model: a name on the Hugging Face hub, such as openai/whisper-small, or "
    "a folder (default: the transcripts that you give)",
    "device": "where to encode: auto is cuda if there is a CUDA device, else cpu (default: auto)",
}

CLIP_OPTIONS = tuple(option for option in (*MAKING.options, DEVICE) if option.name in _HELP)
"""The options that only concern clips, not features."""


def add_clip_options(container: argparse._ActionsContainer, options: Iterable[Option] = CLIP_OPTIONS) -> None:
    """Add the options to a parser or to a group of one. Their values are `None` if they are not given."""
    for option in options:
        metavar = "DIR" if option.name.endswith("encoder") else option.metavar
        container.add_argument(option.flag, metavar=metavar, choices=option.choices, help=_HELP[option.name])


def labeller_of(args: argparse.Namespace, model: Path) -> Labeller:
    """Return the labeller that the arguments ask for. Nothing is loaded but the model.

    Raises:
        InputError: The model cannot be read, or an option does not fit it.
    """
    from study.engines.models import load_model
    from study.output.labelling import Labeller

    args.device = args.device or DEVICE.default
    return Labeller(
        kept=load_model(model, args.system),
        moved={"audio": args.audio_encoder, "text": args.text_encoder},
        asr=args.asr,
        device=device_type(args),
    )

"""``cemobam encoders``: list the supported encoders, or say what an encoder on this machine is."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING

from study.commands.parsing import parser_with_examples

# torch is imported where it is used, so that typing errors answer at once.
if TYPE_CHECKING:
    from cemobam_core.encoders.builds.build import Build
    from cemobam_core.encoders.pretrained import Pretrained

_EXAMPLES = """
examples:
  cemobam encoders
  cemobam encoders facebook/wav2vec2-base-960h
  cemobam encoders FOLDER
  cemobam features --dataset esd --data-root ESD --out features/esd \\
      --audio-encoder openai/whisper-small --audio-layer last4
"""

_TESTED = """
Each type is tested on small models of its architecture with random weights: the frames or
tokens of each layer equal those of transformers, alone and in a batch. The pretrained weights
that were run are those of sentence-transformers/all-MiniLM-L6-v2.

Other encoders of these types are read in the same way, such as those that others fine-tuned.
To see what an encoder on this machine is: cemobam encoders NAME.
""".strip()


def build_parser(prog: str = "cemobam encoders") -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = parser_with_examples(
        prog,
        description="List the encoders that --audio-encoder and --text-encoder accept, or show one: its type, its "
        "layers, the size of its embeddings, and the options that fit. Nothing is downloaded.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "encoder",
        metavar="NAME",
        nargs="?",
        help="one encoder: a folder, or a model name whose files are in the Hugging Face hub's cache on this machine "
        "(default: list what is supported)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the supported encoders, or one encoder, and return the exit status."""
    if args.encoder is None:
        for modality in ("audio", "text"):
            print(f"{modality.capitalize()} encoders (--{modality}-encoder):\n")
            print("\n".join(_listed(modality)))
        print(_TESTED)
        return 0
    from cemobam_core.encoders.pretrained import find_pretrained

    facts = list(_described(find_pretrained(args.encoder, "", download=False)))
    print(args.encoder)
    print("\n".join(f"  {name:<14}  {value}" for name, value in facts))
    return 0


def _listed(modality: str) -> Iterator[str]:
    """Yield the lines on the families of a modality, with examples in columns."""
    from cemobam_core.encoders.builds import builds

    families = [build for build in builds() if build.modality == modality]
    width = max(len(example.name) for build in families for example in build.examples)
    for build in families:
        yield f"  {_summary(build)}"
        yield f"    model_type  {', '.join(build.types)}"
        yield f"    front end   {build.front_end}"
        for example in build.examples:
            numbers = f"{example.layers:>2} layers  E {example.size:>4}  {example.millions:>5.1f} M parameters"
            yield f"    {example.name:<{width}}  {numbers}  {example.licence}".rstrip()
        yield ""


def _described(pretrained: Pretrained) -> Iterator[tuple[str, str]]:
    """Yield what there is to say about an encoder, as names and values."""
    from cemobam_core.encoders.builds import family_of, model_type_of, types, why_not
    from cemobam_core.encoders.builds.refused import REASONS

    model_type = model_type_of(pretrained)
    build = family_of(model_type)
    modality = build.modality if build else "audio" if model_type in REASONS["audio"] else "text"
    yield "model_type", model_type
    yield "folder", str(pretrained.folder)
    yield "revision", pretrained.revision
    yield "weights", _weights(pretrained)
    reason = why_not(modality, pretrained)
    if build is None or reason:
        yield "supported", f"no: {reason}"
        yield "audio types", ", ".join(types("audio"))
        yield "text types", ", ".join(types("text"))
        return
    layers, size = build.size(pretrained)
    yield "supported", f"yes, for --{modality}-encoder"
    yield "architecture", _summary(build)
    yield "front end", build.front_end
    yield "layers", f"{layers}"
    yield "embedding (E)", f"{size}"
    longest = build.longest(pretrained.config)
    if modality == "audio":
        yield "longest window", "as --max-seconds says" if longest is None else f"{longest:g} s"
    else:
        yield "longest text", "as --max-tokens says" if longest is None else f"{longest:g} tokens"
        yield "--text-pool", ", ".join(["cls", "mean", *(["pooler"] if getattr(build, "has_pooler", False) else [])])
    yield f"--{modality}-layer", f"0 to {layers}, last{', last4' if layers >= 4 else ''} (default: last)"
    yield "--tune-layers", f"0 to {layers}, or to the layer that --{modality}-layer names (default: {min(4, layers)})"


def _summary(build: type[Build]) -> str:
    """Return the first sentence of a family's docstring."""
    return inspect.cleandoc(build.__doc__ or "").partition("\n\n")[0].partition(". ")[0].rstrip(".")


def _weights(pretrained: Pretrained) -> str:
    """Describe the files of weights and their size."""
    from cemobam_core.encoders.pretrained import weight_files

    files = weight_files(pretrained.folder)
    if not files:
        return "none in this folder; features cannot be made with it"
    size = sum(path.stat().st_size for path in files) / 1e6
    return f"{files[0].name}{f' and {len(files) - 1} more' if len(files) > 1 else ''}, {size:,.1f} MB"

"""Partial fine-tuning of an encoder on the train split: its upper layers are trained, the others are frozen."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cemobam_core.encoders.ahead import ahead
from cemobam_core.encoders.audio import AudioEncoder
from cemobam_core.encoders.settings import Objective
from cemobam_core.encoders.text import TextEncoder
from cemobam_core.errors import InputError
from cemobam_core.files import written_atomically
from cemobam_core.progress import progress_bar
from cemobam_core.wall import tried

Encoder = AudioEncoder | TextEncoder

TEMPERATURE = 0.07
WORD_DROPOUT = 0.15
CROP_SECONDS = 1.0
"""Settings of the contrastive objective, as in the authors' code."""


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """Settings of fine-tuning an encoder.

    The paper only says that the upper layers are fine-tuned. The learning rate, the temperature and the views of the
    contrastive objective are those of the authors' code. The rest is common practice with BERT (Devlin et al., 2019).

    Attributes:
        layers: Number of upper transformer layers to train.
        objective: ``supervised`` is the cross entropy of a linear head on the pooled embedding. ``contrastive`` is
            NT-Xent (Chen et al., 2020) between two views of each utterance, without labels. The views are two random
            seconds of the audio, or two copies of the text without 15% of the words.
        epochs: Largest number of epochs. Tuning stops earlier if validation does not improve.
        lr: Highest learning rate. It rises linearly over the first tenth of the steps, then falls linearly to 0.
        batch_size: Number of utterances per batch.
        weight_decay: Weight decay of AdamW.
        patience: Number of epochs without a better validation loss after which tuning stops.
        clip_norm: Largest norm of a gradient.
        seed: Seed of batches, views, dropout and the head.
    """

    layers: int
    objective: Objective = "supervised"
    epochs: int = 10
    lr: float = 2e-5
    batch_size: int = 16
    weight_decay: float = 0.01
    patience: int = 3
    clip_norm: float = 1.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class TuningData:
    """The utterances of one split: inputs of the encoder, and labels.

    Attributes:
        items: Sound files for an audio encoder, transcripts for a text encoder.
        labels: (N,), class indices.
    """

    items: Sequence[Any]
    labels: Int64[Tensor, " N"]


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The result of tuning.

    Attributes:
        val_losses: Validation loss of each epoch.
        best_epoch: Epoch, from 1, whose weights were kept.
    """

    val_losses: tuple[float, ...]
    best_epoch: int


def choose_parameters(encoder: Encoder, layers: int) -> str:
    """Freeze an encoder except its ``layers`` upper layers, and return a line that describes the trained ones."""
    assert 0 < layers <= len(encoder.layers), f"{layers} of {len(encoder.layers)} layers"
    encoder.requires_grad_(requires_grad=False)
    for module in _learning(encoder, layers):
        module.requires_grad_(requires_grad=True)
    learning, everything = (
        sum(p.numel() for p in encoder.parameters() if p.requires_grad or every) / 1e6 for every in (False, True)
    )
    last = len(encoder.layers)
    what = f"layer {last}" if layers == 1 else f"layers {last - layers + 1} to {last}"
    there = len(encoder.build.layers)
    return f"training {what} of {there}, the others are frozen: {learning:.3g} of {everything:.3g} million parameters"


def _learning(encoder: Encoder, layers: int) -> list[nn.Module]:
    return [*encoder.layers[len(encoder.layers) - layers :], *encoder.on_top]


def tune(
    encoder: Encoder,
    train: TuningData,
    val: TuningData,
    *,
    num_classes: int,
    config: TuningConfig,
    checkpoint: Path,
    name: str,
    say: Callable[[str], None] = print,
) -> Tuned:
    """Tune an encoder in place. It ends with the weights of the epoch with the lowest validation loss.

    After each epoch the state is written to ``checkpoint``. If this file exists, the call resumes from it. On a CPU, a
    resumed call ends with the same weights as an uninterrupted one. On a GPU, forward passes use mixed precision
    (bfloat16, or float16 with loss scaling if bfloat16 is not supported).

    Args:
        encoder: Encoder on the device to compute on.
        train: Utterances to learn from. No other utterance's label or sound is used.
        val: Utterances that decide when to stop.
        num_classes: Number of classes of the supervised head.
        config: Settings of tuning.
        checkpoint: Checkpoint file. It is read by ``torch.load(weights_only=True)``, which runs no code.
        name: Name for the progress bar and the output.
        say: Function that receives each line of output.

    Raises:
        InputError: The loss is no longer finite, or the checkpoint cannot be read.
    """
    say(f"{name}: {choose_parameters(encoder, config.layers)}")
    device = next(encoder.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        objective = _OBJECTIVES[config.objective](encoder, num_classes).to(device)
        return _Tuning(encoder, objective, train=train, val=val, config=config, checkpoint=checkpoint).run(
            f"tuning {name}"
        )


class _Supervised(nn.Module):
    """Cross entropy of a linear head on the pooled embedding."""

    def __init__(self, encoder: Encoder, num_classes: int) -> None:
        super().__init__()
        self.encoder = [encoder]  # in a list, so that its parameters do not belong to this module
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(encoder.model.config.hidden_size, num_classes))

    def forward(self, items: Sequence[Any], labels: Tensor, draws: np.random.Generator) -> Tensor:
        (encoder,) = self.encoder
        hidden, mask = encoder([_whole(encoder, item, draws) for item in items])
        return nn.functional.cross_entropy(self.head(encoder.pool(hidden, mask)), labels)


class _Contrastive(nn.Module):
    """NT-Xent between two views of each utterance."""

    def __init__(self, encoder: Encoder, _num_classes: int) -> None:
        super().__init__()
        self.encoder = [encoder]

    def forward(self, items: Sequence[Any], _labels: Tensor, draws: np.random.Generator) -> Tensor:
        (encoder,) = self.encoder
        first, second = (encoder.pool(*encoder([_view(encoder, item, draws) for item in items])) for _ in range(2))
        return nt_xent(first, second)


_OBJECTIVES: dict[Objective, Callable[[Encoder, int], nn.Module]] = {
    "supervised": _Supervised,
    "contrastive": _Contrastive,
}


def nt_xent(
    first: Float[Tensor, "B E"], second: Float[Tensor, "B E"], temperature: float = TEMPERATURE
) -> Float[Tensor, ""]:
    """Return the normalised temperature-scaled cross entropy of SimCLR (Chen et al., 2020, Eq. 1).

    Each of the 2B views must find the other view of its utterance among all views, by cosine similarity.
    """
    views = nn.functional.normalize(torch.cat([first, second]).float(), dim=1)  # (2B, E)
    similarity = views @ views.T / temperature  # (2B, 2B)
    similarity = similarity.masked_fill(torch.eye(len(views), dtype=torch.bool, device=views.device), -math.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(first))
    return nn.functional.cross_entropy(similarity, partner)


def _whole(encoder: Encoder, item: Any, draws: np.random.Generator) -> Any:
    """Return a text unchanged, or a clip, of which one random window is taken if it is too long."""
    if isinstance(encoder, TextEncoder):
        return item
    windows = encoder.windows(encoder.prepare(item))
    return windows[draws.integers(len(windows))]


def _view(encoder: Encoder, item: Any, draws: np.random.Generator) -> Any:
    """Return a text without some random words, or one random second of a clip."""
    if isinstance(encoder, TextEncoder):
        words = item.split()
        kept = [word for word in words if draws.random() >= WORD_DROPOUT]
        return " ".join(kept or words)
    clip = encoder.prepare(item)
    length = round(CROP_SECONDS * encoder.rate)
    start = draws.integers(max(1, len(clip) - length + 1))
    return clip[start : start + length]


class _Tuning:
    """One run of ``tune``."""

    def __init__(
        self,
        encoder: Encoder,
        objective: nn.Module,
        *,
        train: TuningData,
        val: TuningData,
        config: TuningConfig,
        checkpoint: Path,
    ) -> None:
        from transformers import get_linear_schedule_with_warmup

        self.encoder, self.objective = encoder, objective
        self.train_data, self.val_data, self.config, self.checkpoint = train, val, config, checkpoint
        self.device = next(encoder.parameters()).device
        self.learning = nn.ModuleDict(
            {"encoder": nn.ModuleList(_learning(encoder, config.layers)), "objective": objective}
        )
        self.optimizer = torch.optim.AdamW(
            self.learning.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        steps = math.ceil(len(train.items) / config.batch_size) * config.epochs
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, math.ceil(steps / 10), steps)
        self.autocast = torch.autocast(self.device.type, dtype=self._half(), enabled=self.device.type == "cuda")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self._half() == torch.float16)
        self.val_losses: list[float] = []
        self.best: dict[str, Tensor] = {}

    def run(self, what: str) -> Tuned:
        self._resume()
        # Frozen layers compute as in feature extraction: without dropout or layer drop.
        self.encoder.eval()
        per_epoch = len(self.train_data.items) + len(self.val_data.items)
        with progress_bar(
            total=self.config.epochs * per_epoch, initial=len(self.val_losses) * per_epoch, desc=what, unit="utterance"
        ) as bar:
            while len(self.val_losses) < self.config.epochs and not self._waited_enough():
                epoch = len(self.val_losses)
                torch.manual_seed(self.config.seed + 1000 * (epoch + 1))
                for n in self._learn(np.random.default_rng([self.config.seed, epoch])):
                    bar.update(n)
                loss = self._validate()
                bar.update(len(self.val_data.items))
                self.val_losses.append(loss)
                if loss <= min(self.val_losses):
                    self.best = copy.deepcopy(self.learning["encoder"].state_dict())
                self._save()
                bar.set_postfix_str(f"validation loss {loss:.3f}, best {min(self.val_losses):.3f}")
        self.learning["encoder"].load_state_dict(self.best)
        return Tuned(val_losses=tuple(self.val_losses), best_epoch=1 + self.val_losses.index(min(self.val_losses)))

    def _waited_enough(self) -> bool:
        if not self.val_losses:
            return False
        since_best = len(self.val_losses) - 1 - self.val_losses.index(min(self.val_losses))
        return since_best >= self.config.patience

    def _learn(self, draws: np.random.Generator) -> Iterator[int]:
        self.learning.train()
        order = draws.permutation(len(self.train_data.items)).tolist()
        for loss, n in self._losses(self.train_data, order, draws):
            if not torch.isfinite(loss):
                raise InputError(
                    f"--tune-lr {self.config.lr:g}: the loss is no longer finite ({float(loss)}); "
                    "give a lower learning rate"
                )
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.learning.parameters(), self.config.clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.schedule.step()
            yield n

    @torch.no_grad()
    def _validate(self) -> float:
        self.learning.eval()
        draws = np.random.default_rng(self.config.seed)  # the same views in every epoch
        everyone = list(range(len(self.val_data.items)))
        return sum(float(loss) * n for loss, n in self._losses(self.val_data, everyone, draws)) / len(everyone)

    def _losses(self, data: TuningData, order: list[int], draws: np.random.Generator) -> Iterator[tuple[Tensor, int]]:
        """Yield the mean loss and the number of utterances of each batch."""
        size = self.config.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        for rows, items in ahead(batches, lambda rows: [self.encoder.read(data.items[i]) for i in rows]):
            with self.autocast:
                loss = self.objective(items, data.labels[rows].to(self.device), draws)
            yield loss, len(rows)

    def _half(self) -> torch.dtype:
        if self.device.type == "cuda" and not torch.cuda.is_bf16_supported():
            return torch.float16
        return torch.bfloat16

    def _save(self) -> None:
        state = {
            "learning": self.learning.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "val_losses": self.val_losses,
            "best": self.best,
        }
        with written_atomically(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        try:
            with tried(_weights_only) as read:
                state = read(self.checkpoint)
            for part in ("learning", "optimizer", "schedule", "scaler"):
                getattr(self, part).load_state_dict(state[part])
            losses, best = state["val_losses"], state["best"]
            if not losses or not all(type(loss) is float for loss in losses) or len(losses) > self.config.epochs:
                raise TypeError("val_losses")
            if _shapes(best) != _shapes(self.learning["encoder"].state_dict()):
                raise TypeError("best")
            self.val_losses, self.best = list(losses), best
        except Exception as error:  # a damaged file can raise any exception
            said = str(error).removeprefix(f"{self.checkpoint}: ") if isinstance(error, InputError) else ""
            raise InputError(
                f"{self.checkpoint}: cannot be resumed ({said or type(error).__name__}); remove it to tune again"
            ) from None


def _weights_only(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}

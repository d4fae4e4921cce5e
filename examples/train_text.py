"""Trains a small transformer on the bytes of a text column, or on a column of tokens.

    torchrun --nproc-per-node 2 -m examples.train_text runs/packages --split train --output runs/text

Kill it at any time; the same line with another --nproc-per-node goes on from the last checkpoint, with no row repeated or lost.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import gristmill
from examples.training import arguments, start, train
from gristmill.storage.stream import Batch

PADDING = -100  # cross_entropy leaves it out


def window(row: dict[str, Any], rng: np.random.Generator, *, column: str, length: int) -> dict[str, Any]:
    """`length` + 1 consecutive tokens from a random place of a row, padded; text is taken as UTF-8 bytes."""
    value = row[column]
    tokens = np.frombuffer((value or "").encode(), np.uint8) if value is None or isinstance(value, str) else value
    begin = int(rng.integers(max(1, len(tokens) - length)))
    out = np.full(length + 1, PADDING, np.int64)
    part = tokens[begin : begin + length + 1]
    out[: len(part)] = part
    return {**{name: row[name] for name in row if name == "_uid"}, "tokens": out}


class Transformer(nn.Module):
    """A causal transformer, small enough for a CPU."""

    def __init__(self, vocabulary: int, length: int, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        held = self.tokens(tokens) + self.places(torch.arange(length, device=tokens.device))
        return self.out(self.layers(held, mask=mask, is_causal=True))


def loss_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Cross entropy of the next tokens, over all places: divided by those without padding, ranks with much of it would weigh their tokens more."""
    tokens, wanted = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
    logits = model(tokens.clamp(min=0))
    return (
        functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=PADDING, reduction="sum")
        / wanted.numel()
    )


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--column", default="text", help="text, or a list of token numbers")
    parser.add_argument("--length", type=int, default=128, help="tokens that the model sees at once")
    parser.add_argument("--vocabulary", type=int, default=256)
    given = parser.parse_args()
    device = start()
    torch.manual_seed(given.seed)
    loader = gristmill.stream(
        given.data,
        split=given.split,
        columns=[given.column, *(["_uid"] if given.log_rows else [])],
        transform=functools.partial(window, column=given.column, length=given.length),
        global_batch_size=given.batch_size,
        epochs=given.epochs,
        seed=given.seed,
        tail="drop",
        device=device,
    )
    train(given, loader, Transformer(given.vocabulary, given.length), loss_of, device)


if __name__ == "__main__":
    main()

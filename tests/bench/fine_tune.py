"""A real fine-tune, as a pair of files for the delta benchmark. Runs in the benchmark's own venv.

    python fine_tune.py BASE.safetensors VOCAB.txt OUT.safetensors

The base is a sentence encoder (BERT, 6 layers of 384). All its weights are trained for 400 steps of
AdamW at 2e-5: a sentence of Python's own documentation must find the one that follows it among the
others of its batch. Weights stay fp32.
"""

import pydoc_data.topics
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

STEPS, BATCH, LENGTH, RATE = 400, 16, 32, 2e-5
HEADS, LAYERS = 12, 6
CLS, SEP, UNKNOWN = 101, 102, 100


class Encoder:
    """BERT, written out: parameters by the names that the file gives them."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.weights = weights

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, self.weights[name + ".weight"], self.weights[name + ".bias"])

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.weights[name + ".weight"], self.weights[name + ".bias"]
        return functional.layer_norm(x, x.shape[-1:], weight, bias, 1e-12)

    def layer(self, x: torch.Tensor, mask: torch.Tensor, name: str) -> torch.Tensor:
        batch, length, width = x.shape

        def heads(part: str) -> torch.Tensor:
            y = self.linear(x, f"{name}.attention.self.{part}")
            return y.view(batch, length, HEADS, width // HEADS).transpose(1, 2)

        seen = functional.scaled_dot_product_attention(
            heads("query"), heads("key"), heads("value"), attn_mask=mask[:, None, None, :]
        )
        seen = seen.transpose(1, 2).reshape(batch, length, width)
        seen = self.linear(seen, f"{name}.attention.output.dense")
        x = self.norm(x + seen, f"{name}.attention.output.LayerNorm")
        wide = functional.gelu(self.linear(x, f"{name}.intermediate.dense"))
        return self.norm(x + self.linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        w, mask = self.weights, ids != 0
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self.norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for number in range(LAYERS):
            x = self.layer(x, mask, f"encoder.layer.{number}")
        counted = mask[:, :, None].float()
        return functional.normalize((x * counted).sum(1) / counted.sum(1), dim=-1)


def sentences(vocabulary: dict[str, int]) -> torch.Tensor:
    """Return Python's documentation, a sentence a row, as ids of its word pieces."""
    text = " ".join(pydoc_data.topics.topics.values()).lower()
    rows = []
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        ids = [CLS]
        for word in re.findall(r"\w+|[^\w\s]", sentence):
            ids += pieces(word, vocabulary)
        if len(ids) >= 8:
            rows.append((ids[: LENGTH - 1] + [SEP] + [0] * LENGTH)[:LENGTH])
    return torch.tensor(rows)


def pieces(word: str, vocabulary: dict[str, int]) -> list[int]:
    """Return a word's longest pieces."""
    ids, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                ids.append(vocabulary[piece])
                start = end
                break
        else:
            return [UNKNOWN]
    return ids


def main() -> None:
    """Train and write."""
    source, words, destination = sys.argv[1:]
    torch.manual_seed(1)
    generator = np.random.default_rng(1)
    weights = load_file(source)
    lines = Path(words).read_text("utf-8").splitlines()
    data = sentences({word: number for number, word in enumerate(lines)})
    trained = {
        name: nn.Parameter(value) for name, value in weights.items() if value.is_floating_point()
    }
    model = Encoder(trained)
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE)
    began = time.monotonic()
    for step in range(STEPS):
        rows = torch.from_numpy(generator.integers(0, len(data) - 1, BATCH))
        scores = model(data[rows]) @ model(data[rows + 1]).T * 20
        loss = functional.cross_entropy(scores, torch.arange(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not step % 50:
            print(f"{step} loss {loss.item():.3f} {time.monotonic() - began:.0f} s", flush=True)
    done = {name: trained[name].detach() if name in trained else weights[name] for name in weights}
    save_file(done, destination, {"format": "pt"})


if __name__ == "__main__":
    main()

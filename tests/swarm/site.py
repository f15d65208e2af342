"""A repository that offers one model: well-formed weights that nothing can compress."""

import json
import random
import struct
from pathlib import Path

from tests.repo_tools.site import MINIMAL, Site, run

MODEL = "shared"


def safetensors(size: int, seed: int) -> bytes:
    """Return a well-formed file of random weights."""
    header = {"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + random.Random(seed).randbytes(size)


def make_site(place: Path, size: int) -> Site:
    """Make a repository and release weights of so many bytes."""
    site = Site(place / "repo", place / "keys")
    done = run(
        *("init", site.directory, "--policy", MINIMAL, "--keys", site.keys, "--plaintext-keys"),
        *("--model", MODEL),
    )
    assert done.code == 0, done
    folder = place / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors(size, 1))
    site.release(MODEL, "1.0.0", folder)
    return site

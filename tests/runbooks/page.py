"""A runbook as a test reads it: its header, and its blocks with the machine that each is for.

The comment at the top says what the page assumes; `docs/runbooks/README.md` explains the words.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = tuple(
    path for path in sorted((ROOT / "docs/runbooks").glob("*.md")) if path.name != "README.md"
)
_HEADER = re.compile(r"\A# [^\n]+\n\n<!-- runbook:([^>]*)-->\n")
_BLOCK = re.compile(
    r"(?:<!-- on: (?P<machine>[a-z0-9-]+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """What is to be typed, or what is to be seen.

    Attributes:
        machine: Whose machine it is typed on; None for what is to be seen.
        text: The text, word for word.
    """

    machine: str | None
    text: str


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        path: Its file.
        assumes: What its header says, by word.
        blocks: Its blocks, in order.
    """

    path: Path
    assumes: dict[str, str]
    blocks: tuple[Block, ...]

    @classmethod
    def read(cls, path: Path) -> "Page":
        text = path.read_text("utf-8")
        header = _HEADER.match(text)
        assert header, f"{path.name} does not begin with a title and a <!-- runbook: --> comment"
        assumes = dict(word.split("=", 1) for word in shlex.split(header[1]))
        blocks = []
        for found in _BLOCK.finditer(text):
            if found["kind"] == "sh":
                assert found["machine"], f"{path.name}: on which machine is this? {found['text']}"
                blocks.append(Block(found["machine"], found["text"]))
            elif found["kind"] == "text":
                blocks.append(Block(None, found["text"]))
        return cls(path, assumes, tuple(blocks))


def is_shown(line: str, transcript: str) -> bool:
    """Tell whether a line was on some screen; three dots stand for anything."""
    pattern = r"[^\n]*".join(re.escape(part) for part in line.strip().split("..."))
    return re.search(pattern, transcript) is not None

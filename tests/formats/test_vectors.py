"""The readable vectors in tests/vectors/formats: what every parser takes, refuses, and says.

`refusals.txt` beside a format's vectors holds the message of every bad one, so that each is refused
for the reason in its name and not for another.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from modelward.errors import FormatError
from modelward.fastpath import Rest
from modelward.formats import dsse, metrics
from modelward.formats.bundle import Bundle
from modelward.formats.channel import Channel
from modelward.formats.chunks import ChunkIndex
from modelward.formats.floors import Floors
from modelward.formats.golden import Golden
from modelward.formats.installed import Installed
from modelward.formats.journal import Journal
from modelward.formats.policy import FleetPolicy, ModelPolicy
from modelward.formats.release import Release
from modelward.formats.report import Report
from modelward.formats.seal import Seal
from modelward.formats.tampering import Tampering
from modelward.formats.ticket import Ticket

VECTORS = Path(__file__).parents[1] / "vectors" / "formats"
PARSERS: Mapping[str, Callable[[bytes], Any]] = {
    "bundle": Bundle.parse,
    "channel": Channel.parse,
    "chunk-index": ChunkIndex.parse,
    "envelope": lambda data: dsse.Envelope.parse("link", data),
    "evidence": dsse.parse_evidence,
    "fleet-policy": FleetPolicy.parse,
    "floors": Floors.parse,
    "golden": Golden.parse,
    "installed": Installed.parse,
    "journal": Journal.parse,
    "metrics": lambda data: metrics.parse("metrics.json", data),
    "model-policy": ModelPolicy.parse,
    "release": Release.parse,
    "report": Report.parse,
    "rest": Rest.parse,
    "seal": Seal.parse,
    "tampering": Tampering.parse,
    "ticket": Ticket.parse,
}


def vectors(kind: str) -> list[Any]:
    return [
        pytest.param(folder.name, path, id=f"{folder.name}/{path.stem}")
        for folder in sorted(VECTORS.glob("*/"))
        for path in sorted(folder.glob(f"{kind}-*"))
    ]


def test_every_format_has_vectors():
    assert {folder.name for folder in VECTORS.glob("*/")} == set(PARSERS)


@pytest.mark.parametrize(("document", "path"), vectors("good"))
def test_good_vector_is_read_and_written_back(document: str, path: Path):
    parsed = PARSERS[document](path.read_bytes())
    if hasattr(parsed, "to_bytes"):
        assert PARSERS[document](parsed.to_bytes()) == parsed


@pytest.mark.parametrize(("document", "path"), vectors("bad"))
def test_bad_vector_is_refused_with_its_reason(document: str, path: Path):
    with pytest.raises(FormatError) as refusal:
        PARSERS[document](path.read_bytes())
    reason, after, _ = refusal.value.reason.partition("is not JSON")  # Python's own words follow
    assert reason + after == expected_reason(path)


def expected_reason(path: Path) -> str:
    lines = (path.parent / "refusals.txt").read_text("utf-8").splitlines()
    reasons = dict(line.split(": ", 1) for line in lines)
    return reasons[path.stem]

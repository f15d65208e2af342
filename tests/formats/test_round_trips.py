"""What modelward writes, it reads back as the same value, in one spelling."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.fastpath import Rest
from modelward.formats import metrics, strict
from modelward.formats.bundle import Bundle
from modelward.formats.channel import Channel
from modelward.formats.chunks import ChunkIndex
from modelward.formats.dsse import Envelope
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
from tests.formats import strategies

DOCUMENTS = {
    "bundle": (Bundle, strategies.bundles),
    "channel": (Channel, strategies.channels),
    "chunk index": (ChunkIndex, strategies.chunk_indexes()),
    "fleet policy": (FleetPolicy, strategies.fleet_policies),
    "floors": (Floors, strategies.floors),
    "golden": (Golden, strategies.goldens),
    "installed": (Installed, strategies.installed),
    "journal": (Journal, strategies.journals),
    "model policy": (ModelPolicy, strategies.model_policies()),
    "release": (Release, strategies.releases()),
    "report": (Report, strategies.reports),
    "seal": (Seal, strategies.seals),
    "tampering": (Tampering, strategies.tamperings),
    "rest": (Rest, strategies.rests),
    "ticket": (Ticket, strategies.tickets),
}


@pytest.mark.fuzz
@pytest.mark.parametrize(("document", "values"), DOCUMENTS.values(), ids=DOCUMENTS)
@given(data=st.data())
def test_document(document, values, data):
    value = data.draw(values)
    written = value.to_bytes()
    read = document.parse(written)
    assert read == value
    assert read.to_bytes() == written


@pytest.mark.fuzz
@given(strategies.metrics)
def test_metrics(values):
    assert metrics.parse("metrics.json", json.dumps(values).encode()) == values


@pytest.mark.fuzz
@given(
    st.dictionaries(strategies.texts, strategies.texts | st.integers(), max_size=4),
    st.dictionaries(strategies.digests, st.binary(max_size=8), max_size=4),
)
def test_envelope(content, signatures):
    envelope = Envelope(strict.dump(content), content, signatures)
    assert Envelope.parse("link", envelope.to_bytes()) == envelope


@pytest.mark.fuzz
@given(strategies.times)
def test_time(time):
    text = strict.rfc3339(time)
    assert strict.Fields("x", {"time": text}).time("time") == time
    assert len(text) == len("2026-11-22T10:00:00Z")

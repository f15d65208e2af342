"""Gate 3's fast path: nothing new is found with one request, and only when that is certain."""

import dataclasses
import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from modelward import fastpath
from modelward.config import from_settings
from modelward.errors import NotFound, Unavailable
from modelward.fastpath import PROBE_ROOT, Rest

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
TIMESTAMP = b'{"signed": {}}'
DIGEST = hashlib.sha256(TIMESTAMP).hexdigest()


class Source:
    """Answers the one request there may be."""

    def __init__(self, answer: bytes | Exception | None = None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int, str]] = []

    def fetch_unless(self, url: str, limit: int, sha256: str) -> bytes | None:
        self.asked.append((url, limit, sha256))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def config(tmp_path):
    """A device at rest since NOW, whose metadata expires in eight hours."""
    config = from_settings(tmp_path, {"repository": "https://example.com", "device_id": "d"})
    (tmp_path / "current").symlink_to("generations/3")
    fastpath.remember(
        tmp_path, Rest(DIGEST, fastpath.settings_digest(config, ()), 3, NOW, NOW + 8 * HOUR)
    )
    return config


def nothing_new(config, answer=None, now=NOW + HOUR, models=()) -> bool:
    return fastpath.nothing_new(config, models, now, Source(answer))


@pytest.mark.parametrize("answer", [None, TIMESTAMP])
def test_nothing_new(config, answer):
    source = Source(answer)
    assert fastpath.nothing_new(config, (), NOW + HOUR, source)
    url = "https://example.com/metadata/timestamp.json"
    assert source.asked == [(url, fastpath.TIMESTAMP_CAP, DIGEST)]


@pytest.mark.parametrize(
    "answer", [b"", TIMESTAMP + b" ", NotFound("no such file"), Unavailable("no route")]
)
def test_any_doubt_means_a_full_check(config, answer):
    assert not nothing_new(config, answer)


@pytest.mark.parametrize(
    ("now", "certain"),
    [
        (NOW, True),
        (NOW + 8 * HOUR - timedelta(seconds=1), True),
        (NOW + 8 * HOUR, False),
        (NOW - timedelta(seconds=1), False),  # the clock was set back
        (datetime.max.replace(tzinfo=UTC), False),
    ],
)
def test_only_until_something_expires(config, now, certain):
    assert nothing_new(config, now=now) == certain


def test_a_new_root_is_looked_for_at_least_daily(config):
    rest = Rest.parse((config.state / fastpath.FILE).read_bytes())
    fastpath.remember(config.state, dataclasses.replace(rest, expires=NOW + 1000 * HOUR))
    assert nothing_new(config, now=NOW + PROBE_ROOT - timedelta(seconds=1))
    assert not nothing_new(config, now=NOW + PROBE_ROOT)


@pytest.mark.parametrize(
    "change",
    [
        {"repository": "https://other.example"},
        {"channel": "canary"},
        {"device_id": "other"},
        {"models": ("meter-reader",)},
        {"labels": {"site": "plant-7"}},
    ],
)
def test_other_settings_mean_a_full_check(config, change):
    assert not nothing_new(dataclasses.replace(config, **change))


def test_other_models_mean_a_full_check(config):
    assert not nothing_new(config, models=("meter-reader",))


@pytest.mark.parametrize("content", [None, b"", b"\0" * 99, b"{}"])
def test_without_a_note_no_request_is_made(config, content):
    fastpath.forget(config.state)
    if content is not None:
        (config.state / fastpath.FILE).write_bytes(content)
    source = Source()
    assert not fastpath.nothing_new(config, (), NOW + HOUR, source)
    assert source.asked == []


@pytest.mark.parametrize("target", ["generations/4", "generations/03", None])
def test_another_generation_means_a_full_check(config, target):
    (config.state / "current").unlink()
    if target:
        (config.state / "current").symlink_to(target)
    assert not nothing_new(config)

"""Gate 3's fast path: nothing new is found with one request, and only when that is certain."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from modelward import fastpath
from modelward.errors import NotFound, Unavailable
from modelward.fastpath import PROBE_ROOT, Rest

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
TIMESTAMP = b'{"signed": {}}'
DIGEST = hashlib.sha256(TIMESTAMP).hexdigest()
ASKED = "a" * 64
URL = "https://example.com"
REST = Rest(DIGEST, ASKED, 3, NOW, NOW + 8 * HOUR, URL, False, {"meter-reader": "1.0.0"})


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
def state(tmp_path):
    """The state of a device at rest since NOW, whose metadata expires in eight hours."""
    (tmp_path / "current").symlink_to("generations/3")
    fastpath.remember(tmp_path, REST)
    return tmp_path


@pytest.mark.parametrize("answer", [None, TIMESTAMP])
def test_nothing_new(state, answer):
    source = Source(answer)
    rest = fastpath.recall(state, ASKED, NOW + HOUR)
    assert rest == REST
    assert fastpath.still_holds(rest, source.fetch_unless)
    url = f"{URL}/metadata/timestamp.json"
    assert source.asked == [(url, fastpath.TIMESTAMP_CAP, DIGEST)]


@pytest.mark.parametrize(
    "answer", [b"", TIMESTAMP + b" ", NotFound("no such file"), Unavailable("no route")]
)
def test_any_doubt_means_a_full_check(answer):
    assert not fastpath.still_holds(REST, Source(answer).fetch_unless)


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
def test_only_until_something_expires(state, now, certain):
    assert (fastpath.recall(state, ASKED, now) is not None) == certain


def test_a_new_root_is_looked_for_at_least_daily(state):
    fastpath.remember(state, REST._replace(expires=NOW + 1000 * HOUR))
    assert fastpath.recall(state, ASKED, NOW + PROBE_ROOT - timedelta(seconds=1))
    assert not fastpath.recall(state, ASKED, NOW + PROBE_ROOT)


def test_other_settings_mean_a_full_check(state):
    assert not fastpath.recall(state, "b" * 64, NOW)


@pytest.mark.parametrize("content", [None, b"", b"\0" * 99, b"{}"])
def test_without_a_note_there_is_no_fast_path(state, content):
    fastpath.forget(state)
    if content is not None:
        (state / fastpath.FILE).write_bytes(content)
    assert not fastpath.recall(state, ASKED, NOW + HOUR)


@pytest.mark.parametrize("target", ["generations/4", "generations/03", None])
def test_another_generation_means_a_full_check(state, target):
    (state / "current").unlink()
    if target:
        (state / "current").symlink_to(target)
    assert not fastpath.recall(state, ASKED, NOW)


@pytest.mark.parametrize(("hours", "until"), [(1, 1), (99, 8)])
def test_it_can_end_sooner_but_not_later(state, hours, until):
    fastpath.end_at(state, NOW + hours * HOUR)
    assert fastpath.recall(state, ASKED, NOW + until * HOUR - timedelta(seconds=1))
    assert not fastpath.recall(state, ASKED, NOW + until * HOUR)


def test_what_is_not_remembered_need_not_end(tmp_path):
    fastpath.end_at(tmp_path, NOW)
    assert not list(tmp_path.iterdir())

"""Alarms: kept where this user may write, until what they are about is mended."""

import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from modelward.errors import ModelwardError
from modelward.formats.tampering import Tampering
from modelward.install import own
from modelward.install.alarms import AlarmStore
from modelward.install.owner import name_of
from tests.crash.owner import as_owner

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
ALARM = Tampering("meter-reader", "1.0.0", "ab" * 32, "model.onnx is missing", NOW, "0.9.0")
NOBODY = 65534


@pytest.fixture
def state(tmp_path):
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def test_kept_and_cleared(state):
    alarms = AlarmStore(state, {})
    assert not alarms.pending()
    assert alarms.keep(ALARM) == state / "alarms/meter-reader-abababababababab.json"
    other = replace(ALARM, release="cd" * 32, at=NOW.replace(hour=9))
    alarms.keep(other)
    assert alarms.pending() == (other, ALARM)
    alarms.clear("meter-reader", ALARM.release)
    assert alarms.pending() == (other,)


def test_what_was_found_first_stays(state):
    alarms = AlarmStore(state, {})
    alarms.keep(ALARM)
    alarms.keep(replace(ALARM, problem="again"))
    assert alarms.pending() == (ALARM,)


def test_a_reader_that_may_not_write_there_keeps_its_own(state, tmp_path):
    home = {"HOME": str(tmp_path / "home")}
    (state / "alarms").write_bytes(b"in the way: root is not stopped by permissions")
    kept = AlarmStore(state, home).keep(ALARM)
    assert kept
    assert kept.is_relative_to(tmp_path / "home/.local/state/modelward")
    assert AlarmStore(state, home).pending() == (ALARM,)
    assert AlarmStore(state, {}).pending() == ()
    assert AlarmStore(state, {}).keep(ALARM) is None


def test_what_is_no_alarm_is_ignored(state):
    alarms = AlarmStore(state, {})
    alarms.keep(ALARM)
    (state / "alarms/torn.json").write_bytes(b"{")
    os.mkfifo(state / "alarms/pipe.json")
    assert alarms.pending() == (ALARM,)


def test_own_folder(tmp_path):
    one, other = (own.own_folder(tmp_path / name, {"HOME": "/h"}, own.LASTING) for name in "ab")
    assert one != other
    assert one.is_relative_to("/h/.local/state/modelward")
    environment = {"HOME": "/h", "XDG_RUNTIME_DIR": "/r", "RUNTIME_DIRECTORY": "/s:/t"}
    found = own.own_folder(tmp_path, environment, own.RUNTIME)
    assert found.is_relative_to("/s/modelward")
    assert own.own_folder(tmp_path, {"HOME": "relative"}, own.RUNTIME) is None


def test_a_folder_that_cannot_be_read_is_passed_over(state, tmp_path):
    """An update must not fail by somebody's home that this user may not enter."""
    home = {"HOME": str(tmp_path / "home")}
    alarms = AlarmStore(state, home)
    alarms.keep(ALARM)
    own = alarms._own[0]
    own.mkdir(parents=True)
    own.parent.chmod(0)
    with as_owner():
        assert alarms.pending() == (ALARM,)
        alarms.clear(ALARM.model, ALARM.release)
    own.parent.chmod(0o755)
    assert alarms.pending() == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_who_may_not_end_an_alarm_is_told_whose_the_folder_is(state):
    alarms = AlarmStore(state, {})
    alarms.keep(ALARM)
    os.chown(state / "alarms", NOBODY, NOBODY)
    with as_owner(), pytest.raises(ModelwardError) as problem:
        alarms.clear(ALARM.model, ALARM.release)
    folder, owner = state / "alarms", name_of(NOBODY)
    assert f"{folder} belongs to {owner}, and this runs as root" in problem.value.reason
    assert problem.value.advice == f"as root: chown root {folder}"
    assert alarms.pending() == (ALARM,)


def test_a_user_settles_its_own_alarms_only(state, tmp_path):
    alarms = AlarmStore(state, {"HOME": str(tmp_path / "home")})
    alarms.keep(ALARM)
    other = replace(ALARM, release="cd" * 32)
    folder = tmp_path / "aside"
    (state / "alarms").rename(folder)
    (state / "alarms").write_bytes(b"in the way")
    for alarm in (ALARM, other):
        alarms.keep(alarm)
    (state / "alarms").unlink()
    folder.rename(state / "alarms")
    alarms.settle(lambda model, release: (model, release) == (ALARM.model, other.release))
    assert alarms.pending() == (ALARM,)
    alarms.settle(lambda _model, _release: True)
    assert not list(alarms._own[0].iterdir())
    assert alarms.pending() == (ALARM,)  # that of the state directory

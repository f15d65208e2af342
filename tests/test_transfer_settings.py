"""[transfer] in modelward.toml, and what an update makes of it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelward import bring, update
from modelward.config import from_settings
from modelward.config.transfer import TransferSettings
from modelward.device import Device
from modelward.errors import Gate, NotNow, Unavailable, UsageError
from modelward.transfer.http import Http
from modelward.transfer.pace import Patience

FULL = {
    "mirrors": ["https://a.example/", "https://b.example"],
    "connections": 4,
    "rate": "500 kB",
    "windows": ["01:00-05:00", "22:00-23:30"],
    "proxy": "http://user:pass@proxy.example:3128",
    "ca": "/etc/ca.pem",
    "certificate": "/etc/device.pem",
    "key": "/etc/device.key",
    "redirects": ["CDN.example", "other.example:8443"],
    "timeout": "30s",
    "minimum_rate": "2 KiB",
    "deadline": "2h",
}


def test_all_settings():
    settings = TransferSettings.parse(FULL)
    assert settings == TransferSettings(
        mirrors=("https://a.example", "https://b.example"),
        connections=4,
        rate=500_000,
        windows=("01:00-05:00", "22:00-23:30"),
        proxy="http://user:pass@proxy.example:3128",
        ca=Path("/etc/ca.pem"),
        certificate=Path("/etc/device.pem"),
        key=Path("/etc/device.key"),
        redirects=("cdn.example", "other.example:8443"),
        timeout=30.0,
        minimum_rate=2048,
        deadline=7200.0,
    )
    assert "pass" not in repr(settings)
    assert TransferSettings.parse({}) == TransferSettings()


def test_they_reach_the_client():
    with Http.of(TransferSettings.parse(FULL)) as http:
        assert (http.patience.connect, http.patience.rate, http.patience.tries) == (30, 2048, 1)
        assert http.network.proxy == FULL["proxy"]
        assert http.network.redirects == ("cdn.example", "other.example:8443")
        assert http.throttle is not None
    with Http.of(TransferSettings.parse(FULL), far=False) as http:
        assert http.throttle is None
        assert not http.network.proxy
    with Http.of(TransferSettings(), Patience(tries=7, rate=1)) as http:
        assert http.throttle is None
        assert (http.patience.tries, http.patience.rate) == (1, 1)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("mirrors", ["ftp://a.example"]),
        ("mirrors", "https://a.example"),
        ("connections", 0),
        ("connections", 9),
        ("rate", "fast"),
        ("rate", 100),  # below minimum_rate
        ("windows", ["1-5"]),
        ("windows", ["25:00-26:00"]),
        ("proxy", "proxy.example:3128"),
        ("proxy", "https://proxy.example"),
        ("proxy", "socks5://proxy.example"),
        ("proxy", "http://proxy.example/path"),
        ("proxy", "http://[::1"),
        ("key", "/etc/device.key"),
        ("redirects", ["https://cdn.example"]),
        ("redirects", ["me@cdn.example"]),
        ("timeout", 0),
        ("timeout", "1h"),
        ("deadline", "5s"),
        ("bandwidth", 1),
    ],
)
def test_setting_that_makes_no_sense(setting, value):
    with pytest.raises(UsageError) as problem:
        TransferSettings.parse({setting: value})
    assert setting in problem.value.reason or "address" in problem.value.reason
    assert "secret" not in problem.value.reason


def test_large_files_wait_for_their_time(tmp_path):
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    around = f"{noon.astimezone():%H}:00-{noon.astimezone():%H}:30"
    later = f"{noon.astimezone():%H}:45-{noon.astimezone():%H}:50"

    def device(*windows: str) -> Device:
        settings = {
            "repository": "https://a.example",
            "device_id": "test",
            "transfer": {"windows": list(windows)},
        }
        return Device(from_settings(tmp_path, settings), clock=lambda: noon)

    bring._check_window(device())
    bring._check_window(device(around))
    with pytest.raises(NotNow, match="large files are fetched at") as problem:
        bring._check_window(device(later))
    assert problem.value.gate is Gate.FETCH
    assert problem.value.to_dict()["outcome"] == "unavailable"
    assert problem.value.to_dict()["opens_in"] == 45 * 60


def test_large_files_take_so_long_and_no_longer(tmp_path):
    settings = {"repository": "https://a.example", "device_id": "test"}
    device = Device(from_settings(tmp_path, settings | {"transfer": {"deadline": "90m"}}))
    bring._check_deadline(device, 5400)
    with pytest.raises(Unavailable, match="longer than 1:30:00") as problem:
        bring._check_deadline(device, 5401)
    assert problem.value.gate is Gate.FETCH


def test_sources_are_waited_for_in_vain_as_long_as_the_timeout_says(tmp_path):
    settings = {"repository": "https://a.example", "device_id": "test"}
    device = Device(from_settings(tmp_path, settings | {"transfer": {"timeout": "1s"}}))
    with update.sources_of(device, None) as sources:
        assert sources.patience.vain == Patience.vain / 10

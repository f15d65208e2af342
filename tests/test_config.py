"""Settings: one file, environment over it, flags over both."""

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.config import (
    FILE,
    Config,
    from_settings,
    load,
)
from modelward.config.address import check_repository
from modelward.errors import UsageError
from modelward.settings import DEFAULT_STATE, state_directory
from tests.formats import strategies

NOBODY = 65534
FILE_SETTINGS = """\
repository = "https://file.example"
channel = "file"
models = ["from-file"]
device_id = "file"
[labels]
site = "plant-7"
"""
texts = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
configs = st.builds(
    from_settings,
    st.just(DEFAULT_STATE),
    st.fixed_dictionaries(
        {
            "repository": st.just("https://example.com/models"),
            "device_id": texts,
            "channel": strategies.names,
            "models": st.lists(strategies.names, max_size=3),
            "labels": st.dictionaries(texts, texts, max_size=3),
        }
    ),
)


@pytest.fixture
def state(tmp_path):
    (tmp_path / FILE).write_text(FILE_SETTINGS)
    return tmp_path


@given(configs)
def test_what_is_written_is_read_back(tmp_path_factory, config: Config):
    state = tmp_path_factory.getbasetemp()
    (state / FILE).write_text(config.to_toml(), "utf-8")
    assert load(state, {}) == replace(config, state=state)


@pytest.mark.parametrize("text", ["😀", 'a"b', "a\\b", "#", "é", "a = b", "[x]", "'''"])
def test_texts_that_toml_could_misread(tmp_path, text):
    settings = {"repository": "https://example.com", "device_id": text, "labels": {text: text}}
    (tmp_path / FILE).write_text(from_settings(tmp_path, settings).to_toml(), "utf-8")
    assert load(tmp_path, {}).device_id == text
    assert load(tmp_path, {}).labels == {text: text}


def test_file(state):
    config = load(state, {})
    assert config.repository == "https://file.example"
    assert (config.channel, config.device_id, config.models) == ("file", "file", ("from-file",))
    assert config.labels == {"site": "plant-7"}


def test_environment_is_over_the_file_and_flags_over_both(state):
    environment = {
        "MODELWARD_REPOSITORY": "https://environment.example",
        "MODELWARD_CHANNEL": "environment",
        "MODELWARD_DEVICE_ID": "environment",
        "MODELWARD_MODELS": "one, two three",
    }
    config = load(state, environment)
    assert config.repository == "https://environment.example"
    assert (config.channel, config.device_id) == ("environment", "environment")
    assert config.models == ("one", "two", "three")
    config = load(state, environment, {"channel": "flag", "device_id": None})
    assert (config.channel, config.device_id) == ("flag", "environment")


def test_empty_variables_count_as_unset(state):
    assert load(state, {"MODELWARD_CHANNEL": "", "MODELWARD_MODELS": ""}) == load(state, {})


def test_state_directory():
    assert state_directory("flag", {"MODELWARD_STATE": "environment"}).name == "flag"
    assert state_directory(None, {"MODELWARD_STATE": "environment"}).name == "environment"
    assert state_directory(None, {}) == DEFAULT_STATE


def test_not_set_up(tmp_path):
    with pytest.raises(UsageError, match="is not set up") as problem:
        load(tmp_path / "absent", {})
    assert "modelward init" in problem.value.advice


@pytest.mark.parametrize(
    "content", [b"\xff", b"repository", b"a = 1\na = 2", b"[labels", b"a = " + b"[" * 9999]
)
def test_file_that_is_no_toml(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path, {})


def test_file_of_somebody_else(state):
    (state / FILE).chmod(0)
    user = os.geteuid()
    os.seteuid(user or NOBODY)  # root may read anything
    try:
        with pytest.raises(UsageError, match="Permission denied") as problem:
            load(state, {})
    finally:
        os.seteuid(user)
    assert "as the user" in problem.value.advice


def test_unknown_setting_is_named(state):
    with (state / FILE).open("a") as file:
        file.write("[other]\n")
    with pytest.raises(UsageError, match="'other' is not a setting") as problem:
        load(state, {})
    assert "channel, device_id, " in problem.value.advice


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("repository", None),
        ("repository", 7),
        ("device_id", None),
        ("device_id", ""),
        ("device_id", "a\nb"),
        ("device_id", "a\x1b[2J"),
        ("device_id", "\udcff"),
        ("channel", ""),
        ("channel", "../stable"),
        ("channel", ["stable"]),
        ("models", "meter-reader"),
        ("models", ["../meter-reader"]),
        ("models", [7]),
        ("labels", ["site"]),
        ("labels", {"site": 7}),
        ("labels", {"site": "a\nb"}),
        ("labels", {"a\x7f": "b"}),
    ],
)
def test_setting_that_makes_no_sense(tmp_path, setting, value):
    settings = {"repository": "https://example.com", "device_id": "test", setting: value}
    with pytest.raises(UsageError):
        from_settings(tmp_path, settings)


def test_health(tmp_path):
    table = {"command": ["/usr/local/bin/check", "--fast"], "timeout": "5m", "memory": "512 MiB"}
    settings = {"repository": "https://example.com", "device_id": "test", "health": table}
    health = from_settings(tmp_path, settings).health
    assert health.command == ("/usr/local/bin/check", "--fast")
    assert (health.timeout, health.memory, health.soak) == (300, 512 << 20, 0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("command", "check --fast"),
        ("timeout", 0),
        ("timeout", "a while"),
        ("memory", "1 MiB"),
        ("memory", 10**20),
        ("memory", "9" * 400 + " GiB"),
        ("soak", "9999999d"),
        ("soak", -1),
        ("isolated", "yes"),
        ("colour", "red"),
    ],
)
def test_health_that_makes_no_sense(tmp_path, setting, value):
    settings = {"repository": "https://example.com", "device_id": "test"}
    with pytest.raises(UsageError, match=r"\[health\]"):
        from_settings(tmp_path, {**settings, "health": {setting: value}})


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "http://127.0.0.1:8080/a/b",
        "http://[::1]:8080",
        "https://xn--bcher-kva.example/%C3%A9",
    ],
)
def test_address(url):
    assert check_repository(url) == check_repository(f"{url}/") == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "ftp://example.com", "file:///srv/repository", "https://", "//h"),
        *("https://h:port", "https://h:99999", "https://h:0", "https://[::1", "https://a..b"),
        *("https://h/?q", "https://h/#f", "https://user:secret@h", "https://h/a b", "https://h/é"),
        *("https://bücher.example", "https://h/\n", "\x00https://h", f"https://{'a' * 70}.example"),
    ],
)
def test_bad_address(url):
    with pytest.raises(UsageError, match="is not a repository's address"):
        check_repository(url)


@pytest.mark.parametrize(("stuck", "timeout"), [("60s", "60s"), ("1m", "2m"), ("59s", None)])
def test_a_check_is_not_stuck_while_it_tries_a_model(tmp_path, stuck, timeout):
    settings = {"repository": "https://a.example", "device_id": "a", "run": {"stuck": stuck}}
    settings["health"] = {"timeout": timeout} if timeout else {}
    with pytest.raises(UsageError, match=r"`stuck` in \[run\] .*`timeout` in \[health\]"):
        from_settings(tmp_path, settings)

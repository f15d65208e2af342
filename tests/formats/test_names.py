"""Names, versions and paths that are safe everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.formats.names import (
    check_distribution,
    check_name,
    check_path,
    check_tree,
    check_version,
)


@pytest.mark.parametrize("name", ["a", "0", "meter-reader", "a" * 64])
def test_name(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "a-", "a_b", "a.b", "a/b", "..", "é", "a\n", "con", "lpt1", "a" * 65]
)
def test_bad_name(name):
    with pytest.raises(ValueError, match="is not a name"):
        check_name(name)


@pytest.mark.parametrize("version", ["1", "1.2.0", "2026-11-22", "1.0+cpu_2", "a" * 64])
def test_version(version):
    assert check_version(version) == version


@pytest.mark.parametrize(
    "version", ["", ".", "..", "1..2", ".1", "1.", "1/2", "1\\2", "1 2", "1\n", "nul", "a" * 65]
)
def test_bad_version(version):
    with pytest.raises(ValueError, match="is not a version"):
        check_version(version)


@pytest.mark.parametrize("name", ["onnxruntime", "scikit-learn", "ruamel.yaml", "A_b1"])
def test_distribution(name):
    assert check_distribution(name) == name


@pytest.mark.parametrize("name", ["", "-", "a-", "../a", "a b", "a[b]", "é", "a\x1b", "a" * 129])
def test_bad_distribution(name):
    with pytest.raises(ValueError, match="is not the name of a Python distribution"):
        check_distribution(name)


@pytest.mark.parametrize("path", ["a", ".hidden", "a/b/c.onnx", "naïve é.txt", "a..b", "console"])
def test_path(path):
    assert check_path(path) == path


def test_path_10_000_deep():
    with pytest.raises(ValueError, match="not a path of 1 to 512"):
        check_path("a/" * 10_000 + "a")
    with pytest.raises(ValueError, match="deeper than 16"):
        check_path("a/" * 255 + "a")


@given(st.text(st.sampled_from("ab./\\:\x00\n \u202e~-"), max_size=12))
def test_path_that_passes_stays_inside(path):
    try:
        check_path(path)
    except ValueError:
        return
    parts = path.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert not set(path) & set("\\:\x00\n\u202e")


@pytest.mark.parametrize(
    "paths",
    [
        ["a", "a"],
        ["a", "A"],
        ["a", "a/b"],
        ["a/b", "A"],
        ["a/b", "A/c"],
        ["straße", "STRASSE"],
        ["e\u0301", "\u00e9"],  # one character or two: macOS makes no difference
        ["a/b/c", "x", "a/B/d"],
    ],
)
def test_paths_that_collide(paths):
    for order in (paths, paths[::-1]):
        with pytest.raises(ValueError, match=r"twice|case|file and a directory"):
            check_tree(order)


def test_paths_that_do_not_collide():
    check_tree(["a/b", "a/c", "b", "d/a/b", "a/d/e", "a.b"])

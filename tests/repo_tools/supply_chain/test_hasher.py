"""Every file is recorded, and what cannot be recorded is an error."""

import hashlib
import os
import socket
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import Refused, UsageError
from modelward.formats.names import check_path
from modelward_repo.supply_chain import hasher
from modelward_repo.supply_chain.hasher import hash_files, relative


def write(root: Path, files: dict[str, bytes]) -> dict[str, str]:
    """Write files and return the digests they must get."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return {path: hashlib.sha256(files[path]).hexdigest() for path in sorted(files)}


def test_nothing_is_skipped(tmp_path):
    """in-toto's recorder leaves out every one of these but the last."""
    names = (
        ".git/config",
        "a.pyc",
        "__pycache__/a.pyc",
        "b~",
        "x.link",
        "x.link.old",
        ".hidden",
        "c",
    )
    expected = write(tmp_path, {f"tree/{name}": name.encode() for name in names})
    assert hash_files(tmp_path, ["tree"]) == expected
    assert hash_files(tmp_path, ["."]) == expected


def test_paths_may_overlap_and_come_sorted(tmp_path):
    expected = write(tmp_path, {"b/1": b"1", "b/2": b"2", "a": b""})
    found = hash_files(tmp_path, ["b", "./b/2", "b/../a", "b/"])
    assert found == expected
    assert list(found) == sorted(found)


def test_workspace_may_be_given_in_any_way(tmp_path, monkeypatch):
    expected = write(tmp_path, {"work/a": b"1"})
    (tmp_path / "other").symlink_to(tmp_path / "work")
    monkeypatch.chdir(tmp_path)
    wanted = {"a": expected["work/a"]}
    for workspace in (Path("work"), Path("work/../work"), tmp_path / "work", Path("other")):
        assert hash_files(workspace, ["a"]) == wanted
    assert hash_files(Path("work"), [str(tmp_path / "work/a")]) == wanted


def test_files_larger_than_a_piece(tmp_path):
    content = os.urandom(hasher.PIECE * 2 + 1)
    expected = write(tmp_path, {"large": content, "exact": content[: hasher.PIECE], "empty": b""})
    assert hash_files(tmp_path, ["."]) == expected


def test_threads_find_the_same_digests_and_report_every_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(hasher, "WORTH_THREADS", 0)
    expected = write(tmp_path, {f"d{i % 7}/{i}": os.urandom(i * 50) for i in range(200)})
    calls: list[tuple[int, int]] = []
    assert hash_files(tmp_path, ["."], lambda done, total: calls.append((done, total))) == expected
    total = sum(i * 50 for i in range(200))
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)


def test_two_workspaces_at_once(tmp_path):
    """in-toto changes the process's directory: two threads record each other's files."""
    trees = [write(tmp_path / str(number), {"f": str(number).encode()}) for number in range(8)]
    found: dict[int, dict[str, str]] = {}

    def record(number: int) -> None:
        for _ in range(20):
            found[number] = hash_files(tmp_path / str(number), ["f"])

    threads = [threading.Thread(target=record, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(8)] == trees


@pytest.mark.parametrize(
    "path", ["", "..", "../x", "/etc/passwd", "a/../../x", "/", "../workspace-2/x", "~/x/../../.."]
)
def test_paths_outside_are_refused(tmp_path, path):
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match="not inside of the workspace"):
        hash_files(workspace, [path])


@pytest.mark.parametrize("path", ["none", "a/none", "a/none/none", "none/../none"])
def test_missing_paths_are_refused(tmp_path, path):
    write(tmp_path, {"a/b": b""})
    with pytest.raises(UsageError, match="does not exist"):
        hash_files(tmp_path, [path])


def test_file_as_directory_is_refused(tmp_path):
    write(tmp_path, {"a": b""})
    with pytest.raises(UsageError, match="cannot be read"):
        hash_files(tmp_path, ["a/b"])


def test_empty_directories_are_refused(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    with pytest.raises(UsageError, match="empty directory"):
        hash_files(tmp_path, ["a"])


@pytest.mark.parametrize(
    ("link", "target", "record"),
    [
        ("out", "/etc/passwd", "out"),
        ("out", "/etc", "out/passwd"),
        ("dir/out", "../../outside", "dir"),
        ("dir/inside", "../file", "dir"),
        ("dir/loop", ".", "dir"),
        ("dir/self", "self", "dir"),
        ("dir/dangling", "nowhere", "."),
        ("way", "dir2", "way/f"),
    ],
)
def test_symbolic_links_are_refused(tmp_path, link, target, record):
    write(tmp_path, {"file": b"", "dir/f": b"", "dir2/f": b""})
    (tmp_path / link).symlink_to(target)
    with pytest.raises(Refused, match="is a symbolic link"):
        hash_files(tmp_path, [record])


def test_pipes_sockets_and_devices_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name in ("pipe", "socket"):
            with pytest.raises(Refused, match="device, pipe or socket"):
                hash_files(tmp_path, [name])
    with pytest.raises(Refused, match="device, pipe or socket"):
        hash_files(Path("/dev"), ["null"])


@pytest.mark.parametrize(
    "name", ["aux", "a:b", "a b ", "dot.", "back\\slash", "new\nline", "\x1b[2J"]
)
def test_names_that_are_not_safe_everywhere_are_refused(tmp_path, name):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / name).touch()
    with pytest.raises(UsageError) as caught:
        hash_files(tmp_path, ["d"])
    assert caught.value.reason.isprintable()


def test_names_that_are_no_text_are_refused(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).touch()
    with pytest.raises(UsageError) as caught:
        hash_files(tmp_path, ["."])
    assert caught.value.reason.isprintable()


def test_names_that_differ_only_in_case_are_refused(tmp_path):
    write(tmp_path, {"d/Model": b"", "d/model": b""})
    with pytest.raises(UsageError, match="case"):
        hash_files(tmp_path, ["d"])


def test_directories_too_deep_are_refused(tmp_path):
    write(tmp_path, {"/".join("d" * 17): b""})
    with pytest.raises(UsageError, match="deeper"):
        hash_files(tmp_path, ["."])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files_are_refused(tmp_path):
    write(tmp_path, {"a": b""})
    (tmp_path / "a").chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        hash_files(tmp_path, ["a"])


# --- files that change meanwhile


def touch_it(path: Path) -> None:
    path.write_bytes(b"other content")


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def same_size_same_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_rename(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES = [
    touch_it,
    append,
    same_size_same_time,
    replace_by_rename,
    replace_by_link,
    replace_by_pipe,
]


@pytest.mark.parametrize("change", CHANGES)
def test_file_that_changes_while_it_is_hashed_is_refused(tmp_path, change):
    write(tmp_path, {"d/file": bytes(hasher.PIECE * 2), "d/z": b"last"})
    changed = []

    def interfere(_done: int, _total: int) -> None:
        if not changed:
            changed.append(change(tmp_path / "d/file"))

    with pytest.raises((Refused, UsageError)) as caught:
        hash_files(tmp_path, ["d/file"], interfere)
    assert "changed while it was hashed" in caught.value.reason


@pytest.mark.parametrize("change", [change for change in CHANGES if change != same_size_same_time])
def test_file_that_changes_after_it_was_found_is_refused(tmp_path, change, monkeypatch):
    write(tmp_path, {"d/file": b"content"})
    digest = hasher._digest

    def late(file, advance, known):
        change(tmp_path / "d/file")
        return digest(file, advance, known)

    monkeypatch.setattr(hasher, "_digest", late)
    with pytest.raises((Refused, UsageError)):
        hash_files(tmp_path, ["d/file"])


def test_file_that_gets_and_loses_names_meanwhile_is_hashed(tmp_path):
    # As another publisher's workspace does; its content stays the same.
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_bytes(bytes(hasher.PIECE * 2))
    changes = iter([lambda: other.hardlink_to(file), other.unlink])

    def interfere(_done: int, _total: int) -> None:
        next(changes, lambda: None)()

    hashed = hash_files(tmp_path, ["file"], interfere)
    assert hashed == {"file": hashlib.sha256(bytes(hasher.PIECE * 2)).hexdigest()}


def test_file_whose_names_never_rest_is_refused(tmp_path, monkeypatch):
    write(tmp_path, {"file": b"content"})
    file, read = tmp_path / "file", hasher._read

    def restless(place, advance):
        states, digest = read(place, advance)
        file.chmod(stat.S_IMODE(file.stat().st_mode) ^ stat.S_IXUSR)
        return [*states[:-1], file.stat()], digest

    monkeypatch.setattr(hasher, "_read", restless)
    with pytest.raises(Refused, match="changed while it was hashed"):
        hash_files(tmp_path, ["file"])


# --- properties

PART = st.text(st.sampled_from("ab.~ /\\:é\u0301\x00\n"), max_size=6)


@pytest.mark.fuzz
@given(st.lists(PART, max_size=5).map("/".join))
def test_a_path_never_leaves_the_workspace(path):
    workspace = Path("/workspace")
    try:
        inside = relative(workspace, path)
    except UsageError:
        return
    assert ".." not in Path(inside).parts
    assert not inside.startswith("/")


@pytest.mark.fuzz
@given(st.dictionaries(PART, st.binary(max_size=8), min_size=1, max_size=6))
def test_files_are_all_recorded_or_the_whole_is_refused(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("workspace")
    (root / "t").mkdir()
    for name, content in files.items():
        place = root / "t" / f"./{name.strip('/')}"
        if ".." in place.parts:
            continue
        with suppress(OSError, ValueError):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    try:
        found = hash_files(root, ["t"])
    except UsageError:
        return
    assert found == {
        place.relative_to(root).as_posix(): hashlib.sha256(place.read_bytes()).hexdigest()
        for place in (root / "t").rglob("*")
        if place.is_file()
    }
    assert all(check_path(path) == path for path in found)

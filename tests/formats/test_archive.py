import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError
from modelward.formats import archive
from modelward.formats.archive import BLOCK, END, Member, header, members, padding

EVIDENCE = f"targets/models/{'m' * 64}/{'1' * 64}/{'a' * 64}.evidence.jsonl"
NAMES = ("metadata/timestamp.json", "bundle.json", EVIDENCE)


def make(files: dict[str, bytes]) -> bytes:
    parts = [
        header(path, len(data)) + data + bytes(padding(len(data))) for path, data in files.items()
    ]
    return b"".join([*parts, END])


def read(data: bytes) -> list[Member]:
    return list(members(lambda offset, length: data[offset : offset + length]))


def by_tarfile(*infos: tarfile.TarInfo, form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for info in infos:
            made.addfile(info, io.BytesIO(bytes(info.size)) if info.isreg() else None)
    return out.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, size, "/etc/passwd"
    return made


def test_what_is_written_is_read_back_here_and_by_tar(tmp_path: Path) -> None:
    files = {name: name.encode() * number for number, name in enumerate(NAMES)}
    data = make(files)
    found = {member.path: data[member.offset :][: member.length] for member in read(data)}
    assert found == files
    (tmp_path / "bundle.tar").write_bytes(data)
    subprocess.run(["tar", "xf", "bundle.tar"], cwd=tmp_path, check=True)
    assert {name: (tmp_path / name).read_bytes() for name in NAMES} == files


def test_what_tar_makes_of_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/timestamp.json").write_bytes(b"{}")
    for options in ([], ["--format=ustar"]):
        command = ["tar", *options, "-cf", "-", "./metadata"]
        data = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
        assert [member.path for member in read(data)] == ["metadata/timestamp.json"]


def test_a_file_larger_than_octal_can_say() -> None:
    large = 1 << 40
    block = header("blobs/sha256/aa/aa", large)
    (member,) = members(lambda offset, length: {0: block}.get(offset, bytes(length)))
    assert member == Member("blobs/sha256/aa/aa", BLOCK, large)
    assert tarfile.TarInfo.frombuf(block, "ascii", "strict").size == large


@pytest.mark.attack(25)
@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_a_link_or_device_is_refused(kind: bytes) -> None:
    with pytest.raises(FormatError, match="is no plain file"):
        read(by_tarfile(info("metadata/timestamp.json", kind)))


@pytest.mark.attack(25)
@pytest.mark.parametrize("name", ["metadata/../../etc/passwd", "etc/passwd", "metadata", "log//x"])
def test_a_path_that_no_bundle_has_is_refused(name: str) -> None:
    with pytest.raises(FormatError):
        read(by_tarfile(info(name)))


def test_extended_headers_are_refused() -> None:
    with pytest.raises(FormatError, match="is no plain file"):
        read(by_tarfile(info("metadata/" + "é" * 90), form=tarfile.PAX_FORMAT))


def test_what_is_cut_off_or_damaged_is_refused() -> None:
    data = make({"metadata/timestamp.json": b"x" * 600})
    for cut in (0, 100, BLOCK, 3 * BLOCK):
        with pytest.raises(FormatError, match=r"cut off|no tar header"):
            read(data[:cut])
    with pytest.raises(FormatError, match="no tar header"):
        read(b"y" + data[1:])


def test_a_path_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="too long"):
        header(f"metadata/{'x' * 101}", 1)


def test_more_files_than_any_bundle_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    block = header("metadata/timestamp.json", 0)
    with pytest.raises(FormatError, match="more than 3 files"):
        list(members(lambda _offset, _length: block))


@pytest.mark.fuzz
@given(st.data())
def test_any_bytes_are_read_or_refused(data: st.DataObject) -> None:
    made = bytearray(make({NAMES[0]: b"x" * data.draw(st.integers(0, 600)), NAMES[1]: b"{}"}))
    for place in data.draw(st.lists(st.integers(0, len(made) - 1), max_size=4)):
        made[place] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(made))
    except FormatError:
        return
    assert all(member.offset >= BLOCK and member.length >= 0 for member in found)

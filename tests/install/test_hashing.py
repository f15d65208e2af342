"""Hashing open files: the same digests, alone or together, whatever their size."""

import hashlib
from contextlib import ExitStack

from modelward.install.hashing import READ, digests, sha256_of


def test_one_file(tmp_path):
    for content in (b"", b"x", bytes(READ), bytes(2 * READ + 1)):
        path = tmp_path / "file"
        path.write_bytes(content)
        with path.open("rb") as file:
            file.seek(1)  # where it stands does not matter
            assert sha256_of(file.fileno()) == hashlib.sha256(content).hexdigest()


def test_several_files_in_their_order(tmp_path):
    contents = [b"small", b"a" * (5 * READ), b"b" * (3 * READ), b""]
    with ExitStack() as opened:
        files = []
        for number, content in enumerate(contents):
            (tmp_path / str(number)).write_bytes(content)
            files.append(opened.enter_context((tmp_path / str(number)).open("rb")))
        found = digests([file.fileno() for file in files])
    assert found == [hashlib.sha256(content).hexdigest() for content in contents]
    assert digests([]) == []

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import ExitCode, ModelwardError
from modelward.formats.floors import Floors, RoleFloor
from modelward_repo.documents.inspect import describe, inspect
from tests.repo_tools.site import ROOT, Site, run
from tests.simulator.world import Done

NOW = datetime(2026, 11, 22, tzinfo=UTC)
VECTORS = ROOT / "tests/vectors/formats"


@pytest.fixture(scope="module")
def released(template: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    from tests.repo_tools.site import make_folder  # noqa: PLC0415

    place = tmp_path_factory.mktemp("released")
    site = template.copy(place)
    site.release("alpha", "1.0.0", make_folder(place / "folder", b"weights"))
    return site


def look(path: Path) -> Done:
    done = run("inspect", path)
    assert done.code == 0, done
    assert "NOT verified:" in done.out
    assert max(map(ord, done.out)) < 0x7F
    data = run("inspect", path, "--json").json
    assert data["not_verified"]
    assert data["file"] == str(path)
    assert len(data["sha256"]) == 64
    return done


def only(site: Site, pattern: str) -> Path:
    (found,) = site.directory.glob(pattern)
    return found


def test_root(released: Site) -> None:
    path = released.directory / "metadata/1.root.json"
    out = look(path).out
    assert "role root: 2 of 3 must sign, for 365 days at a time" in out
    assert "3 of 3, 2 needed: enough" in out
    assert "that this is your repository's root" in out
    assert "alice " in out


def test_a_root_that_lacks_signatures_or_has_expired(released: Site, tmp_path: Path) -> None:
    data = (released.directory / "metadata/1.root.json").read_bytes()
    start = data.index(b'"sig":"') + 7
    forged = data[:start] + b"0" * 8 + data[start + 8 :]
    found = describe(forged, "root", datetime.now(UTC) + timedelta(days=400))
    assert "2 of 3, 2 needed: enough" in found.checked[0]
    assert "EXPIRED 35 days ago" in found.lines[1] or "EXPIRED 34 days ago" in found.lines[1]
    changed = data.replace(b'"version":1', b'"version":7')
    found = describe(changed, "root", NOW)
    assert "nobody: 0 of 3, 2 needed: NOT ENOUGH" in found.checked[0]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("metadata/1.targets.json", ["policy.json", "role channels: 1 of 1", "may vouch for"]),
        ("metadata/2.model-alpha.json", ["models/alpha/1.0.0/release.json"]),
        ("metadata/1.snapshot.json", ["targets version 1"]),
        ("metadata/timestamp.json", ["snapshot version"]),
        ("targets/layouts/*.alpha.json", ["A layout", "1. package", "Signed by"]),
        ("targets/policies/*.alpha.json", ["the model alpha", "2 of 3 owners"]),
        ("targets/*.policy.json", ["channels: stable, beta", "formats"]),
        ("targets/models/alpha/1.0.0/*.release.json", ["alpha 1.0.0, number 1", "model.onnx"]),
        ("targets/models/alpha/1.0.0/*.evidence.jsonl", ["2 links", "step package", "approve"]),
        ("targets/channels/*.beta.json", ["The channel beta", "offers nothing yet"]),
    ],
)
def test_what_lies_in_a_repository(released: Site, pattern: str, words: list[str]) -> None:
    out = look(only(released, pattern)).out
    for word in words:
        assert word in out


def test_a_ticket_a_link_a_key_and_floors(released: Site, tmp_path: Path) -> None:
    ticket = tmp_path / "ticket.json"
    args = ("ticket", "alpha", "2.0.0", "-o", ticket, "-r", released.directory)
    assert run(*args).code == 0
    assert "is to become alpha 2.0.0" in look(ticket).out
    evidence = only(released, "targets/models/alpha/1.0.0/*.evidence.jsonl").read_bytes()
    link = tmp_path / "one.link"
    link.write_bytes(evidence.splitlines(keepends=True)[0])
    assert "A link" in look(link).out
    assert "whose key may do which step is for the layout to say" in look(link).out
    assert "its id is the hash of the key" in look(released.keys / "alice/root.pub").out
    floors = tmp_path / "floors.json"
    floors.write_bytes(
        Floors(
            root=2,
            snapshot=RoleFloor(7, "ab" * 32, frozenset({"cd" * 32})),
            listed={"targets": 3},
            releases={"alpha": 4},
        ).to_bytes()
    )
    out = look(floors).out
    assert "root 2" in out
    assert "snapshot 7, signed by cdcdcdcd" in out
    assert "timestamp: none yet" in out
    assert "releases of alpha: from number 4" in out


def test_a_private_key_is_not_opened(released: Site) -> None:
    out = look(released.keys / "alice/root.key").out
    assert out.startswith("A PRIVATE KEY.")


@pytest.mark.parametrize(
    "path",
    sorted(path for path in VECTORS.glob("*/good-*") if path.parent.name != "installed"),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_good_vectors(path: Path) -> None:
    """Whatever a device accepts can be looked at; some envelopes there hold no layout or link."""
    try:
        found = inspect(path, NOW)
    except ModelwardError as error:
        assert path.parent.name in ("envelope", "evidence", "metrics"), error  # noqa: PT017
    else:
        assert found.unverified


def test_a_document_of_an_unknown_schema(tmp_path: Path) -> None:
    path = tmp_path / "future.json"
    path.write_text('{"schema": "modelward/future/9", "x": "\\u001b[31m"}')
    out = look(path).out
    assert "knows nothing about" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (b"", ExitCode.USAGE, "nothing that is known here"),
        (b"hello", ExitCode.USAGE, "nothing that is known here"),
        (b"[1]", ExitCode.USAGE, "not a document"),
        (b"{}", ExitCode.USAGE, "nothing that is known here"),
        (b'{"a": 1, "a": 2}', ExitCode.REFUSED, "appears twice"),
        (b'{"signed": {}, "signatures": []}', ExitCode.USAGE, "looks like TUF metadata, but is"),
        (b'{"signed": 1, "signatures": 2}', ExitCode.USAGE, "looks like TUF metadata, but is"),
        (b'{"keyid": "x", "keyval": 1}', ExitCode.REFUSED, "keyid"),
        (b'{"schema": "modelward/ticket/1"}', ExitCode.REFUSED, "is missing"),
        (b"[" * 100_000, ExitCode.REFUSED, "nested deeper"),
        (b'{"x": 1}\n{"x": 2}', ExitCode.REFUSED, "payloadType"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, code: ExitCode, reason: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    done = run("inspect", path)
    assert done.code == code, done
    assert reason in done.err


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "is a directory" in run("inspect", tmp_path).err
    assert "cannot be read" in run("inspect", tmp_path / "nothing").err


@given(st.binary(max_size=300), st.sampled_from(["root", "layout", "release", "pub"]), st.data())
def test_damaged_files_are_refused_not_tripped_over(
    template: Site, noise: bytes, kind: str, data: st.DataObject
) -> None:
    """Whatever the bytes, the answer is a description or an error meant for people."""
    path = {
        "root": template.directory / "metadata/1.root.json",
        "layout": next((template.directory / "targets/layouts").iterdir()),
        "release": VECTORS / "release/good-full.json",
        "pub": template.keys / "alice/root.pub",
    }[kind]
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good)))
    for content in (noise, good[:at] + noise[:2] + good[at:], good[:at] + good[at + 1 :]):
        try:
            found = describe(content, "file", NOW)
        except ModelwardError:
            continue
        assert all(line.isprintable() for line in found.lines)


def test_random_names_do_not_matter(released: Site, tmp_path: Path) -> None:
    copy = tmp_path / secrets.token_hex(4)
    copy.write_bytes((released.directory / "metadata/1.root.json").read_bytes())
    assert "TUF root metadata" in look(copy).out

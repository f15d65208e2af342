import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from modelward.errors import ExitCode
from modelward.formats.channel import Channel
from modelward.formats.release import Release
from tests.repo_tools.site import (
    MODELS,
    Packed,
    PlainTuf,
    Site,
    files_of,
    make_folder,
    pack,
    read_with_plain_tuf,
    serving,
)
from tests.simulator.model_files import onnx_file, safetensors_head


@pytest.fixture
def packed(site: Site, folder: Path, tmp_path: Path) -> Packed:
    """Version 1.0 of alpha, packaged and approved."""
    return pack(site, "alpha", "1.0", folder, tmp_path / "packed")


def publish(site: Site, packed: Packed, *args: object, version: str = "1.0") -> tuple[object, ...]:
    return ("publish", "alpha", version, packed.bundle, "--evidence", packed.links, *args)


def test_a_release_is_published(
    site: Site, packed: Packed, plain_tuf: PlainTuf, folder: Path
) -> None:
    done = site.run(*publish(site, packed, "--requires-runtime", "onnxruntime=>=1.17, <3"))
    assert done.code == 0, done
    assert "gate 7 (supply chain): 2 steps proven by 2 signed links" in done.out
    targets = plain_tuf(site.directory)
    release = Release.parse(targets["models/alpha/1.0/release.json"])
    assert release.counter == 1
    assert release.requires.runtime == (("onnxruntime", ">=1.17, <3"),)
    assert {file.path for file in release.files} == {"model.onnx", "ticket.json", "vocab/words.txt"}
    blob = next(file.blob for file in release.files if file.path == "model.onnx")
    stored = site.directory / f"blobs/sha256/{blob.sha256[:2]}/{blob.sha256}"
    assert stored.read_bytes() == (folder / "model.onnx").read_bytes()
    assert len(targets["models/alpha/1.0/evidence.jsonl"].splitlines()) == 2


def test_counters_rise_whatever_the_version_says(site: Site, tmp_path: Path) -> None:
    for number, version in enumerate(("2.0", "1.0", "zebra"), 1):
        folder = make_folder(tmp_path / version, version.encode())
        done = site.run("release", "alpha", version, folder, "--json")
        assert done.json["release"]["counter"] == number


def test_a_disk_that_takes_no_more_is_said(site: Site, tmp_path: Path) -> None:
    """Here a limit on the size of files; and what is run again goes on from there."""
    folder = make_folder(tmp_path / "large", os.urandom(1 << 20))
    before = files_of(site.directory)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))

    started = site.start("release", "alpha", "1.0", folder, "--json", preexec_fn=limit)
    out, err = started.communicate(timeout=60)
    failure = json.loads(out)
    assert started.returncode == ExitCode.ERROR
    assert "File too large" in failure["reason"]
    assert "run it again" in failure["advice"]
    assert "Traceback" not in err
    assert files_of(site.directory) == before
    site.release("alpha", "1.0", folder)


def test_the_same_release_again_changes_nothing(site: Site, packed: Packed) -> None:
    assert site.run(*publish(site, packed)).code == 0
    before = files_of(site.directory)
    done = site.run(*publish(site, packed, "--json"))
    assert (done.code, done.json["already"], done.json["counter"]) == (0, True, 1)
    assert files_of(site.directory) == before


def test_a_file_that_is_not_what_it_says_is_not_released(site: Site, folder: Path) -> None:
    """Attack row 24, by accident: devices would refuse it, so no key is opened for it."""
    before = files_of(site.directory)
    (folder / "model.onnx").write_bytes(pickle.dumps({"weights": [1]}))
    done = site.run("release", "alpha", "1.0", folder)
    assert done.code == ExitCode.REFUSED
    assert "gate 8 (policy)" in done.err
    assert "model.onnx: is a pickle, which runs code when it is loaded" in done.err
    assert files_of(site.directory) == before


def test_what_was_packaged_is_looked_into_when_it_is_published(
    site: Site, folder: Path, tmp_path: Path
) -> None:
    (folder / "words.txt").write_bytes(b"caf\xe9")
    packed = pack(site, "alpha", "1.0", folder, tmp_path / "packed")
    done = site.run(*publish(site, packed))
    assert done.code == ExitCode.REFUSED
    assert "words.txt: is not UTF-8 text" in done.err


def test_a_published_version_never_changes(site: Site, packed: Packed, tmp_path: Path) -> None:
    assert site.run(*publish(site, packed)).code == 0
    before = files_of(site.directory)
    other = pack(site, "alpha", "1.0", make_folder(tmp_path / "f2", b"other"), tmp_path / "p2")
    for args in (publish(site, other), publish(site, packed, "--requires-hardware", "aarch64")):
        done = site.run(*args)
        assert done.code == ExitCode.USAGE
        assert "published already, with other content" in done.err
    assert files_of(site.directory) == before


def test_a_dry_run_writes_nothing(site: Site, packed: Packed) -> None:
    before = files_of(site.directory)
    done = site.run(*publish(site, packed, "--dry-run"))
    assert done.code == 0
    assert "would be published" in done.out
    assert files_of(site.directory) == before
    (packed.bundle / "model.onnx").write_bytes(b"poisoned")
    assert site.run(*publish(site, packed, "--dry-run")).code == ExitCode.REFUSED


def test_what_a_device_would_refuse_cannot_be_published(site: Site, packed: Packed) -> None:
    before = files_of(site.directory)
    (packed.bundle / "model.onnx").write_bytes(b"poisoned")
    done = site.run(*publish(site, packed))
    assert done.code == ExitCode.REFUSED
    assert "refused at gate 7 (supply chain)" in done.err
    assert "'model.onnx' is not the file that was approved" in done.err
    done = site.run(*publish(site, packed, "--json"))
    assert (done.json["gate_number"], done.json["outcome"]) == (7, "refused")
    assert files_of(site.directory) == before


def test_a_release_without_approval_cannot_be_published(site: Site, packed: Packed) -> None:
    (packed.links / "approve.link").unlink()
    done = site.run(*publish(site, packed))
    assert done.code == ExitCode.REFUSED
    assert "gate 7" in done.err


def test_evidence_of_another_model_does_not_do(
    site: Site, packed: Packed, folder: Path, tmp_path: Path
) -> None:
    beta = pack(site, "beta", "1.0", folder, tmp_path / "beta")
    mixed = Packed(packed.bundle, beta.links)
    assert site.run(*publish(site, mixed)).code == ExitCode.REFUSED
    done = site.run(*publish(site, beta))
    assert done.code == ExitCode.REFUSED
    assert "was issued for beta 1.0, not for alpha 1.0" in done.err


def test_a_stolen_release_key_alone_publishes_nothing_that_devices_take(
    site: Site, packed: Packed
) -> None:
    """The gates are not in the publisher's hands: keys of other roles do not help it either."""
    for holder in ("packager", "approver"):
        shutil.rmtree(site.keys / holder)
    shutil.rmtree(packed.links)
    packed.links.mkdir()
    (packed.links / "approve.link").write_text("{}")
    done = site.run(*publish(site, packed))
    assert done.code == ExitCode.USAGE
    assert "approve.link is not a link" in done.err


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("model.pkl", "can run code"),
        ("model.PT", "can run code"),
        ("model.exe", "the suffix .exe stands for no format"),
        ("model", "a name without suffix stands for no format"),
    ],
)
def test_formats_no_device_loads_are_refused_early(
    site: Site, packed: Packed, name: str, problem: str
) -> None:
    (packed.bundle / name).write_bytes(b"")
    done = site.run(*publish(site, packed))
    assert done.code == ExitCode.USAGE
    assert name in done.err
    assert problem in done.err


def test_symbolic_links_are_refused(site: Site, packed: Packed) -> None:
    (packed.bundle / "more.txt").symlink_to("/etc/passwd")
    done = site.run(*publish(site, packed))
    assert done.code == ExitCode.REFUSED
    assert "symbolic link" in done.err


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("publish", "gamma", "1.0", "{bundle}", "--evidence", "{links}"), "no role 'model-gamma'"),
        (("publish", "../alpha", "1", "{bundle}", "--evidence", "{links}"), "no role"),
        (("publish", "alpha", "1..0", "{bundle}", "--evidence", "{links}"), "not a version"),
        (("publish", "alpha", "1.0", "{links}", "--evidence", "{links}"), "no ticket"),
        (("publish", "alpha", "1.0", "/nowhere", "--evidence", "{links}"), "not a directory"),
        (("publish", "alpha", "1.0", "{bundle}", "--evidence", "/nowhere"), "cannot be read"),
        (("publish", "alpha", "1.0", "{bundle}", "--evidence", "{bundle}"), "no *.link file"),
        (
            ("publish", "alpha", "1.0", "{bundle}", "--evidence", "{bundle}/model.onnx"),
            "is not a link",
        ),
        (
            (*("publish", "alpha", "1.0", "{bundle}", "--evidence", "{links}"), "--component", "x"),
            "is not NAME=VALUE",
        ),
        (
            (
                *("publish", "alpha", "1.0", "{bundle}", "--evidence", "{links}"),
                *("--component", "beta=9.9"),
            ),
            "component beta 9.9 is not published",
        ),
        (
            (
                *("publish", "alpha", "1.0", "{bundle}", "--evidence", "{links}"),
                *("--requires-runtime", "onnxruntime=new"),
            ),
            "is not like '>=1.17, <3'",
        ),
    ],
)
def test_bad_input_is_refused_with_words(
    site: Site, packed: Packed, args: tuple[str, ...], problem: str
) -> None:
    before = files_of(site.directory)
    done = site.run(*(arg.format(bundle=packed.bundle, links=packed.links) for arg in args))
    assert done.code in (ExitCode.USAGE, ExitCode.REFUSED)
    assert problem in done.err
    assert files_of(site.directory) == before


def test_publishing_reads_no_other_private_key(site: Site, packed: Packed) -> None:
    """CI has three keys; the others are not even looked at when they happen to lie there."""
    code = (
        "import sys\n"
        "opened = set()\n"
        "def hook(event, args):\n"
        "    if event == 'open' and str(args[0]).endswith('.key'): opened.add(str(args[0]))\n"
        "sys.addaudithook(hook)\n"
        "from modelward_repo.cli import run\n"
        "code = run(sys.argv[1:])\n"
        "print('\\n'.join(sorted(opened)), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, publish(site, packed))],
        env={**os.environ, **site.env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.split() == [
        f"{site.keys}/{name}.key"
        for name in ("release-ci/model-alpha", "repository/snapshot", "repository/timestamp")
    ]


def test_publishing_works_where_no_other_key_is(
    site: Site, packed: Packed, plain_tuf: PlainTuf
) -> None:
    for path in site.keys.rglob("*.key"):
        if path.stem not in ("model-alpha", "snapshot", "timestamp"):
            path.unlink()
    assert site.run(*publish(site, packed)).code == 0
    assert "models/alpha/1.0/release.json" in plain_tuf(site.directory)


def test_without_the_models_key_nothing_is_published(site: Site, packed: Packed) -> None:
    (site.keys / "release-ci/model-alpha.key").unlink()
    done = site.run(*publish(site, packed))
    assert done.code == ExitCode.USAGE
    assert "1 of 1 keys must sign as 'model-alpha', but 0 of them" in done.err


def test_a_key_of_the_same_name_that_root_does_not_know_does_not_sign(
    site: Site, packed: Packed
) -> None:
    for suffix in ("key", "pub"):
        (site.keys / f"repository/timestamp.{suffix}").unlink()
    assert site.run("key", "create", "repository/timestamp", "--plaintext").code == 0
    done = site.run(*publish(site, packed))
    assert done.code == ExitCode.USAGE
    assert "must sign as 'timestamp', but 0 of them" in done.err


@pytest.mark.timeout(60)
def test_killed_anywhere_the_old_repository_stands_and_the_next_publish_works(
    site: Site, packed: Packed, folder: Path, tmp_path: Path
) -> None:
    before = files_of(site.directory)
    old = read_with_plain_tuf(site.directory.as_uri(), _root(site), tmp_path / "tuf")
    done = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("kill_everywhere.py"))),
            *(str(site.directory), str(tmp_path / "work")),
            *map(str, publish(site, packed, "--json")),
            *("--repository", "{}", "--keys", str(site.keys)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    points = int(done.stdout.rsplit("points: ", 1)[1])
    assert points > 40  # every sync, rename and new directory of eight files and a timestamp
    outcomes = []
    looked_at = set()
    for point in range(1, points + 1):
        killed = Site(tmp_path / "work" / str(point), site.keys)
        files = files_of(killed.directory)
        for path, content in before.items():
            assert path == "metadata/timestamp.json" or files[path] == content
        if (state := _state(killed)) in looked_at:
            continue
        looked_at.add(state)
        url = killed.directory.as_uri()
        seen = read_with_plain_tuf(url, _root(site), tmp_path / "seen" / str(point))
        outcomes.append("models/alpha/1.0/release.json" in seen)
        assert outcomes[-1] or seen == old
        again = killed.run(*publish(killed, packed))
        assert again.code == 0, (point, again)
        seen = read_with_plain_tuf(url, _root(site), tmp_path / "again" / str(point))
        assert Release.parse(seen["models/alpha/1.0/release.json"]).counter == 1
    # Old until the timestamp is renamed, new from then on. (Runs that were killed in another second
    # published under another time, so that there may be several last states.)
    assert len(outcomes) > 20
    assert outcomes == sorted(outcomes)
    assert not all(outcomes)
    assert outcomes[-1]


def _state(site: Site) -> tuple[frozenset[str], int]:
    """Return what tells one kill's remains from another's: names, and which timestamp it is."""
    names = {
        path.relative_to(site.directory).as_posix()
        for path in site.directory.rglob("*")
        if path.parent.name != ".partial"
    }
    if list(site.directory.glob(".partial/*")):
        names.add("something partial")
    return frozenset(names), site.metadata("timestamp").signed.version


def _root(site: Site) -> bytes:
    return (site.directory / "metadata/1.root.json").read_bytes()


def test_readers_see_a_consistent_repository_while_it_changes(
    site: Site, tmp_path: Path, plain_tuf: PlainTuf
) -> None:
    folders = [make_folder(tmp_path / f"f{n}", b"%d" % n) for n in range(12)]
    finished = threading.Event()
    published: list[int] = []

    def keep_publishing() -> None:
        try:
            for number, folder in enumerate(folders):
                published.append(
                    site.run("release", MODELS[number % 2], f"1.{number}", folder).code
                )
        finally:
            finished.set()

    with serving(site.directory) as url:
        thread = threading.Thread(target=keep_publishing)
        thread.start()
        states = set()
        while not finished.is_set():
            targets = plain_tuf(url)
            states.add(len(targets))
            channel = Channel.parse(targets["channels/stable.json"])
            for model, entry in channel.models.items():
                # What a channel offers is there, whole, down to the last blob.
                release = Release.parse(targets[f"models/{model}/{entry.version}/release.json"])
                for file in release.files:
                    digest = file.blob.sha256
                    blob = requests.get(f"{url}/blobs/sha256/{digest[:2]}/{digest}", timeout=10)
                    assert len(blob.content) == file.blob.length
        thread.join()
    assert published == [0] * len(folders)
    assert len(states) > 2
    assert len(plain_tuf(site.directory)) == 7 + 2 * len(folders)


def test_of_two_runs_that_overtake_each_other_the_lower_is_not_published(
    site: Site, tmp_path: Path, folder: Path
) -> None:
    overtaken = pack(site, "alpha", "1.0", folder, tmp_path / "overtaken")
    site.release("alpha", "1.1", folder)
    args = ("publish", "alpha", "1.0", overtaken.bundle, "--evidence", overtaken.links)
    done = site.run(*args)
    assert done.code == ExitCode.USAGE
    assert "issued for release 1 of alpha, but release 1 is published already" in done.err


def test_publishers_of_two_models_both_land(
    site: Site, tmp_path: Path, plain_tuf: PlainTuf
) -> None:
    # Releases of one model have an order, so only those of different models race.
    for version in ("1.0", "1.1", "1.2"):
        folder = make_folder(tmp_path / version, version.encode())
        for process in [site.start("release", model, version, folder) for model in MODELS]:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, (out, err)
    targets = plain_tuf(site.directory)
    for model in MODELS:
        counters = [
            Release.parse(targets[f"models/{model}/{version}/release.json"]).counter
            for version in ("1.0", "1.1", "1.2")
        ]
        assert sorted(counters) == [1, 2, 3]
    # Two changes a release, none lost: each took its own version.
    assert site.metadata("snapshot").signed.version == 1 + 12


def test_a_big_file_is_not_read_into_memory(site: Site, folder: Path) -> None:
    size = 160 << 20
    with (folder / "model.safetensors").open("wb") as file:
        file.write(safetensors_head(size))
        file.truncate(file.tell() + size)
    code = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from modelward_repo.cli import run\n"
        "code = run(sys.argv[1:])\n"
        # Not ru_maxrss: that one remembers the process which started this one.
        "status = Path('/proc/self/status').read_text()\n"
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', status)[1], file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "release", "alpha", "1.0", str(folder)],
        env={**os.environ, **site.env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stderr) * 1024 < size


def test_the_folder_is_left_as_it_was(site: Site, folder: Path) -> None:
    before = {path: path.read_bytes() for path in _files(folder)}
    site.release("alpha", "1.0", folder)
    assert {path: path.read_bytes() for path in _files(folder)} == before
    assert not list(site.directory.glob(".workspace-*"))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def test_release_tells_who_signs_what_with_which_key(site: Site, folder: Path) -> None:
    lines = site.release("alpha", "1.0", folder).out.splitlines()
    assert lines[0] == f"package: signed with {site.keys}/packager/functionary.key"
    assert lines[1] == f"approve: signed with {site.keys}/approver/functionary.key"
    assert lines[2] == "publish: signed with model-alpha, snapshot and timestamp"
    assert lines[-2] == "channel: signed with channels, snapshot and timestamp"
    assert lines[-1] == "stable offers alpha 1.0 now."


def test_an_interrupted_release_is_finished(site: Site, folder: Path) -> None:
    """Published, but killed before the channel was set: the same command completes it."""
    site.release("alpha", "1.0", folder)
    assert site.run("release", "alpha", "1.0", folder, "--channel", "beta").code == 0
    shown = json.loads(site.run("channel", "show", "--json").out)
    assert shown["beta"]["alpha"]["version"] == "1.0"
    (folder / "model.onnx").write_bytes(onnx_file(b"other"))
    done = site.run("release", "alpha", "1.0", folder)
    assert done.code == ExitCode.USAGE
    assert "with other content" in done.err


def test_release_refuses_what_was_packaged_before(site: Site, folder: Path) -> None:
    (folder / "ticket.json").write_text("{}")
    done = site.run("release", "alpha", "1.0", folder)
    assert done.code == ExitCode.USAGE
    assert "has a ticket.json already" in done.err


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("release", "alpha", "1.0", "/nowhere"), "is not a directory"),
        (("release", "Alpha", "1.0", "{}"), "is not a name"),
        (("release", "alpha", "-", "{}"), "is not a version"),
        (("release", "gamma", "1.0", "{}"), "no role 'model-gamma'"),
        (("release", "alpha", "1.0", "{}", "--channel", "x"), "no channel 'x'"),
    ],
)
def test_release_of_what_makes_no_sense(
    site: Site, folder: Path, args: tuple[str, ...], problem: str
) -> None:
    done = site.run(*(arg.format(folder) for arg in args))
    assert done.code == ExitCode.USAGE
    assert problem in done.err


def test_release_without_the_approvers_key_says_who_is_missing(site: Site, folder: Path) -> None:
    (site.keys / "approver/functionary.key").unlink()
    done = site.run("release", "alpha", "1.0", folder)
    assert done.code == ExitCode.USAGE
    assert "must do the step 'approve', but the keys of only 0" in done.err

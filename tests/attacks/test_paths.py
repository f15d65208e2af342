"""Names that would reach outside of a release, or mean different things on different devices.

A release is JSON, so a symbolic link or a device file can only be *named* in it; what a bundle on
the publisher's disk may hold is tested in tests/repo_tools/supply_chain/test_hasher.py.
"""

from dataclasses import replace

import pytest

from modelward.errors import ExitCode, Gate
from modelward.formats.release import Blob, ReleaseFile
from tests.attacks.scene import Scene
from tests.simulator.chain import Link, digest
from tests.simulator.folders import gone_after, nest
from tests.simulator.thief import PUBLISHER, release_of

FAKE = b"* * * * * root /tmp/owned\n"

NAMES: dict[str, tuple[str, str]] = {
    "path traversal": ("../../../etc/cron.d/model.txt", "'..' part"),
    "path traversal inside": ("a/../../model.txt", "'..' part"),
    "absolute path": ("/etc/cron.d/model.txt", "is absolute"),
    "backslashes": ("..\\..\\model.txt", "not safe in a file name"),
    "drive letter": ("C:model.txt", "not safe in a file name"),
    "device file": ("/dev/mem", "is absolute"),
    "reserved name": ("aux.txt", "reserved device name"),
    "reserved name of a folder": ("CON/model.txt", "reserved device name"),
    "final dot": ("model.onnx.", "ends in a dot"),
    "empty part": ("a//model.txt", "an empty"),
    "line break": ("a\nb.txt", "character"),
    "10,000 deep": ("d/" * 10_000 + "model.txt", " characters"),
    "17 deep": ("d/" * 16 + "model.txt", "nested deeper"),
}
TREES: dict[str, tuple[tuple[str, ...], str]] = {
    "case collision": (("Words.txt", "words.txt"), "differs from another path only in case"),
    "case collision of folders": (("Vocab/a.txt", "vocab/b.txt"), "differ only in case"),
    "accents spelt in two ways": (("caf\u00e9.txt", "cafe\u0301.txt"), "only in case"),
    "through a symbolic link": (("link.txt", "link.txt/passwd.txt"), "both a file and a directory"),
    "twice the same": (("a.txt", "a.txt"), "appears twice"),
}


def publish_with(scene: Scene, *paths: str) -> None:
    """Publish an honest release with more files, under these paths."""
    chain = scene.world.chain("1.1.0")
    release = release_of("1.1.0", chain.content)
    extra = tuple(ReleaseFile(path, Blob(digest(FAKE), len(FAKE)), "text") for path in paths)
    document = replace(release, files=(*release.files, *extra)).to_bytes()
    thief = scene.thief(*PUBLISHER)
    thief.publish("1.1.0", chain.content, chain.evidence, document=document)


@pytest.mark.attack(25)
@pytest.mark.parametrize("name", NAMES)
def test_path_in_a_release(scene: Scene, name: str) -> None:
    """A release names a file so that it would land elsewhere"""
    path, reason = NAMES[name]
    publish_with(scene, path)
    scene.refused_at(Gate.RELEASE, reason, tuf=False, checksums=False)


@pytest.mark.attack(25)
@pytest.mark.parametrize("tree", TREES)
def test_paths_that_clash(scene: Scene, tree: str) -> None:
    """A release names files that cannot stand beside each other everywhere"""
    paths, reason = TREES[tree]
    publish_with(scene, *paths)
    scene.refused_at(Gate.RELEASE, reason, tuf=False, checksums=False)


@pytest.mark.attack(25)
def test_release_nested_10_000_deep(scene: Scene) -> None:
    """A release is JSON that nests 10,000 deep, to exhaust whoever parses it."""
    chain = scene.world.chain("1.1.0")
    document = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
    thief = scene.thief(*PUBLISHER)
    thief.publish("1.1.0", chain.content, chain.evidence, document=document)
    scene.refused_at(Gate.RELEASE, "nested deeper than", tuf=False, checksums=False)


@pytest.mark.attack(25)
@pytest.mark.parametrize("name", NAMES)
def test_path_in_a_link(scene: Scene, name: str) -> None:
    """Evidence names a file so that it would land elsewhere"""
    path, reason = NAMES[name]

    def tamper(link: Link) -> Link:
        if link.step == "train":
            link.content["products"][path] = {"sha256": digest(FAKE)}
        return link

    chain = scene.world.chain("1.1.0")
    thief = scene.thief(*PUBLISHER, "train-ci/functionary")
    thief.publish("1.1.0", chain.content, thief.links(chain, tamper))
    scene.refused_at(Gate.SUPPLY_CHAIN, reason, tuf=False, checksums=False)


@pytest.mark.attack(25)
def test_evidence_nested_10_000_deep(scene: Scene) -> None:
    """Evidence is JSON that nests 10,000 deep, to exhaust whoever parses it."""
    chain = scene.world.chain("1.1.0")
    evidence = chain.evidence_bytes() + b'{"payload":' * 10_000 + b"1" + b"}" * 10_000 + b"\n"
    scene.thief(*PUBLISHER).publish("1.1.0", chain.content, evidence)
    scene.refused_at(Gate.SUPPLY_CHAIN, "nested deeper than", tuf=False, checksums=False)


@pytest.mark.attack(25)
@pytest.mark.parametrize("count", [1500, 5000])
def test_folders_that_are_swept(scene: Scene, count: int) -> None:
    """Folders within each other, longer than a path can be, where leftovers are swept"""
    device = scene.world.device
    with gone_after(device):
        for place in ("", "slots/meter-reader", "tuf", "generations"):
            left = device / place / ".tmp-0123456789abcdef"
            left.mkdir()
            nest(left, count)
        nest(device / "tuf", count)
        assert scene.world.client_here("verify").code == ExitCode.DONE
        scene.conclude("no harm", "11 install")
        assert not [*device.glob(".tmp-*"), *device.glob("*/.tmp-*"), *device.glob("*/*/.tmp-*")]

"""Brings one large file, as different programs do: run by `tests.bench.transfer`, one a process.

python -m tests.bench.transfer_peers NAME URL SHA256 LENGTH FOLDER
"""

import hashlib
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path


def ours(urls: str, sha256: str, length: int, folder: Path, ca: Path | None = None) -> None:
    """The whole of gate 10: received, hashed, written, synced, renamed."""
    from modelward.formats.release import Blob
    from modelward.install.store import Store
    from modelward.transfer.fetch import fetch_blob
    from modelward.transfer.http import Http, Patience
    from modelward.transfer.network import Network
    from modelward.transfer.sources import of_addresses

    first, *mirrors = urls.split(",")
    with Http(Patience(tries=1), network=Network(ca=ca)) as http:
        sources = of_addresses(first, mirrors, http, Patience())
        fetch_blob(sources, Blob(sha256, length), Store(folder))


def tls(url: str, sha256: str, length: int, folder: Path) -> None:
    """The same from a server whose authority is a private one."""
    ours(url, sha256, length, folder, folder.parent / "ca.pem")


def counted(url: str, sha256: str, length: int, folder: Path) -> None:
    """Ours, and how many bytes it took from its sockets, in a file that outlives a kill."""
    import mmap
    import struct

    from modelward.transfer.body import Body

    with (folder.parent / "count").open("r+b") as file:
        count = mmap.mmap(file.fileno(), 8)
    inner = Body.readinto

    def readinto(self: Body, buffer: memoryview) -> int:
        taken = inner(self, buffer)
        struct.pack_into("Q", count, 0, struct.unpack_from("Q", count)[0] + taken)
        return taken

    Body.readinto = readinto  # type: ignore[method-assign]
    ours(url, sha256, length, folder)


def tuf(url: str, sha256: str, length: int, folder: Path) -> None:
    """python-tuf's own client: `download_target`."""
    from tuf.ngclient import Updater, UpdaterConfig

    (folder / "metadata").mkdir()
    root = (folder.parent / "www/metadata/1.root.json").read_bytes()
    updater = Updater(
        str(folder / "metadata"), f"{url}/metadata/", bootstrap=root,
        target_dir=str(folder), target_base_url=f"{url}/targets/",
        config=UpdaterConfig(prefix_targets_with_hash=False),
    )  # fmt: skip
    updater.refresh()
    info = updater.get_targetinfo("model")
    if info is None:
        raise SystemExit("the target is not in the metadata")
    updater.download_target(info)


def hub(url: str, sha256: str, length: int, folder: Path) -> None:
    """huggingface_hub's download over HTTP. It verifies no digest."""
    from huggingface_hub.file_download import http_get

    with (folder / "model").open("wb") as file:
        http_get(blob_url(url, sha256), file, expected_size=length)


def requests_streaming(url: str, sha256: str, length: int, folder: Path) -> None:
    """What many programs do by hand."""
    import requests

    digest = hashlib.sha256()
    with (
        requests.get(blob_url(url, sha256), stream=True, timeout=60) as response,
        (folder / "model").open("wb") as file,
    ):
        for block in response.iter_content(1 << 20):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != sha256:
        raise SystemExit("wrong digest")


def blob_url(url: str, sha256: str) -> str:
    """Return where the file is."""
    return f"{url}/blobs/sha256/{sha256[:2]}/{sha256}"


def make_tuf_metadata(www: Path, file: Path) -> None:
    """Make a TUF repository that has the file as its one target."""
    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import (
        Metadata,
        MetaFile,
        Root,
        Snapshot,
        TargetFile,
        Targets,
        Timestamp,
    )

    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    signer = CryptoSigner.generate_ed25519()
    targets = Targets(expires=expires)
    targets.targets["model"] = TargetFile.from_file("model", str(file), ["sha256"])
    root = Root(expires=expires, consistent_snapshot=False)
    for role in ("root", "timestamp", "snapshot", "targets"):
        root.add_key(signer.public_key, role)
    snapshot = Snapshot(expires=expires, meta={"targets.json": MetaFile(1)})
    timestamp = Timestamp(expires=expires, snapshot_meta=MetaFile(1))
    (www / "metadata").mkdir()
    for name, signed in {
        "1.root": root, "targets": targets, "snapshot": snapshot, "timestamp": timestamp,
    }.items():  # fmt: skip
        metadata = Metadata(signed)
        metadata.sign(signer)
        metadata.to_file(str(www / "metadata" / f"{name}.json"))
    (www / "targets").mkdir()
    (www / "targets/model").hardlink_to(file)


RUN = {
    "ours": ours,
    "tls": tls,
    "counted": counted,
    "tuf": tuf,
    "hub": hub,
    "requests": requests_streaming,
}

if __name__ == "__main__":
    name, address, digest_hex, size, place = sys.argv[1:]
    RUN[name](address, digest_hex, int(size), Path(place))

"""A disk with Debian 12 on it, and this client: what a virtual machine starts from.

Debian is fetched once, from where this machine gets its own packages, and kept in `.vm/`.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.wheels import build_wheel, closure, copy_dependencies, copy_distributions

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".vm"
TOOLS = ("qemu-system-x86_64", "mmdebstrap", "mke2fs")
PACKAGES = (
    "systemd-sysv,dbus,linux-image-cloud-amd64,python3,python3-venv,iproute2,e2fsprogs,procps"
)
APT = Path("/etc/apt")
SOURCES = [path for end in ("*.list", "*.sources") for path in APT.rglob(end)]
SIZE = 3 << 30  # bytes of the disk, which is sparse
RUNTIMES = "/opt/runtimes"  # in the machine: what loads and runs models; a client brings none
MODULES = "virtio_pci\nvirtio_blk\nvirtio_console\next4\n"
AGENT = Path(__file__).with_name("agent.py")
UNIT = """[Unit]
Description=Does what the test says
[Service]
ExecStart=/usr/bin/python3 /opt/agent.py
[Install]
WantedBy=multi-user.target
"""
REPOSITORY = """[Unit]
Description=A repository, served by whatever serves files
[Service]
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 --directory /run/repository 8080
"""


def missing() -> str | None:
    """Return why no machine can be made here, or None."""
    for tool in TOOLS:
        if shutil.which(tool) is None:
            return f"{tool} is not installed: apt-get install qemu-system-x86 mmdebstrap e2fsprogs"
    if platform.machine() != "x86_64" or sys.version_info[:2] != (3, 11):
        return "the machine is an x86_64 one, with the Python of Debian 12"
    return None


@dataclass(frozen=True)
class Image:
    """What a machine starts from.

    Attributes:
        kernel: Debian's kernel.
        initrd: What it loads its modules from.
        disk: The root file system: ext4 with the feature `verity`.
    """

    kernel: Path
    initrd: Path
    disk: Path


def build(place: Path) -> Image:
    """Make a disk with Debian and the client as it is in this checkout.

    Args:
        place: An empty directory.
    """
    tree = place / "tree"
    run("cp", "-a", "--reflink=auto", _debian(), tree)
    _install_client(tree, build_wheel(ROOT / "client", place))
    copy_distributions(closure(["onnxruntime", "safetensors"]), tree / RUNTIMES.lstrip("/"))
    shutil.copy(AGENT, tree / "opt/agent.py")
    for name, text in {"agent": UNIT, "repository": REPOSITORY}.items():
        (tree / f"etc/systemd/system/{name}.service").write_text(text, "utf-8")
    wanted = tree / "etc/systemd/system/multi-user.target.wants/agent.service"
    wanted.symlink_to("/etc/systemd/system/agent.service")
    (tree / "mnt/repositories").mkdir()
    image = Image(place / "kernel", place / "initrd", place / "disk")
    for file, name in {image.kernel: "vmlinuz", image.initrd: "initrd.img"}.items():
        shutil.copy((tree / name).resolve(strict=True), file)
    make_disk(image.disk, tree, SIZE)
    shutil.rmtree(tree)
    return image


def _install_client(tree: Path, wheel: Path) -> None:
    """Install the client as its guide says: in an environment of its own."""
    run("chroot", tree, "python3", "-m", "venv", "/opt/modelward")
    (packages,) = tree.glob("opt/modelward/lib/python*/site-packages")
    copy_dependencies(wheel, packages)
    shutil.copy(wheel, tree / "opt")
    pip = ("/opt/modelward/bin/pip", "install", "--quiet", "--no-index", "--no-deps")
    run("chroot", tree, *pip, f"/opt/{wheel.name}")
    (tree / "usr/local/bin/modelward").symlink_to("/opt/modelward/bin/modelward")


def make_disk(disk: Path, tree: Path, size: int) -> None:
    """Make an image of a file system with what is in a tree."""
    with disk.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "verity", "-d", tree, disk)


def _debian() -> Path:
    """Return a tree with Debian in it, made on first use."""
    key = hashlib.sha256(f"{PACKAGES}{MODULES}".encode()).hexdigest()[:16]
    tree = KEPT / f"debian-{key}"
    if not tree.exists():
        aside = tree.with_suffix(".tmp")
        shutil.rmtree(aside, ignore_errors=True)
        KEPT.mkdir(exist_ok=True)
        modules = "$1/etc/initramfs-tools"
        hook = f"mkdir -p {modules}/conf.d; echo MODULES=list >{modules}/conf.d/vm; "
        hook += f"printf '{MODULES}' >{modules}/modules"
        run(
            *("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={PACKAGES}"),
            *(f"--essential-hook={hook}", "bookworm", aside, *SOURCES),
        )
        aside.rename(tree)
    return tree


def run(*command: str | Path) -> None:
    """Run a command that must succeed."""
    subprocess.run([*map(str, command)], check=True)

"""The calls that change a disk, each by itself. `fsops` and `writer` make nothing but these.

One seam for all of them: tests record here what happens in which order, and replay every prefix of
it as a power cut might have left it (tests/crash).
"""

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path

_HERE = -100  # AT_FDCWD: paths are relative to the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE
_CLONE = 0x40049409  # FICLONE: let two files share their blocks until one is written to
_ENABLE_VERITY = 0x40806685  # FS_IOC_ENABLE_VERITY: version 1, SHA-256, blocks of 4096 bytes


def create(path: Path, mode: int) -> int:
    """Create a file that must not exist, and return a descriptor to write to it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, mode)


def reopen(path: Path) -> int:
    """Open a file that exists, and return a descriptor to write on in it."""
    return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_direct(path: Path) -> int:
    """Open a file that exists, to write to it past the page cache."""
    return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC)


def reserve(descriptor: int, length: int) -> None:
    """Reserve room for a file and set its length.

    Not by `os.posix_fallocate`: where the file system cannot do it, that writes to every block.
    """
    import ctypes  # noqa: PLC0415 - what only reads does without

    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if function is None:
        raise OSError(errno.ENOSYS, "no fallocate")
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while function(descriptor, 0, 0, length):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def write(descriptor: int, data: memoryview) -> int:
    """Write where the file stands; return how many bytes were."""
    return os.write(descriptor, data)


def write_at(descriptor: int, data: memoryview, offset: int) -> int:
    """Write at an offset; return how many bytes were."""
    return os.pwrite(descriptor, data, offset)


def truncate(descriptor: int, length: int) -> None:
    """Cut a file off, or let it grow by zeros."""
    os.ftruncate(descriptor, length)


def clone(source: int, destination: int) -> None:
    """Let an empty file share all of another's blocks, where the file system can."""
    fcntl.ioctl(destination, _CLONE, source)


def enable_verity(descriptor: int) -> None:
    """Let the kernel check a file's content from now on, which then can never change."""
    fcntl.ioctl(descriptor, _ENABLE_VERITY, struct.pack("=IIII112x", 1, 1, 4096, 0))


def sync(descriptor: int) -> None:
    """Make a file's content durable, or a directory's entries."""
    os.fsync(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Make durable whatever was done to the file system that a file is on."""
    import ctypes  # noqa: PLC0415 - seldom needed

    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def make_directory(path: Path, mode: int) -> None:
    """Make one directory; one that is there already is fine."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)  # noqa: PTH102 - one system call, by its own name


def rename(
    source: Path, destination: Path, source_in: int | None = None, destination_in: int | None = None
) -> None:
    """Rename, replacing what is there, atomically; from and to open folders, if they are given."""
    os.rename(source, destination, src_dir_fd=source_in, dst_dir_fd=destination_in)


def exchange(one: Path, other: Path) -> None:
    """Let two names in use swap what they lead to, atomically (Linux)."""
    import ctypes  # noqa: PLC0415 - loads slowly, and only repairs need it

    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "renameat2", None)
    if call is None:  # a C library from before 2018
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def link(source: Path, destination: Path) -> None:
    """Give a file a second name."""
    os.link(source, destination, follow_symlinks=False)


def symlink(target: str, path: Path) -> None:
    """Make a symbolic link."""
    os.symlink(target, path)  # noqa: PTH211


def unlink(path: Path, folder: int | None = None) -> None:
    """Remove a name that is not a directory's, from an open folder, if one is given."""
    os.unlink(path, dir_fd=folder)


def remove_directory(path: Path, folder: int | None = None) -> None:
    """Remove an empty directory, from an open folder, if one is given."""
    os.rmdir(path, dir_fd=folder)


def change_mode(path: Path | int, mode: int) -> None:
    """Change who may do what with a file or directory, which may be open."""
    os.chmod(path, mode)  # noqa: PTH101

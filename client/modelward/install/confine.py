"""Takes away from the process that calls it what running a model does not need.

Whatever this kernel and these privileges allow is put in force, and said; nothing is assumed. The
resource limits always hold. Only for a process that is about to do one thing.

In two steps, since libraries make threads as they are imported, and each thread is confined by
itself: `leave` before there is a second one, `confine` once all that is needed was imported.
"""

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CLONE_THREAD = 0x00010000
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_FILTER = 1  # SECCOMP_SET_MODE_FILTER
_ALL_THREADS = 1  # SECCOMP_FILTER_FLAG_TSYNC
_SIGKILL = 9
_THREADS = 64  # processes and threads of the user together


@dataclass(frozen=True)
class Limits:
    """What a process may take.

    Attributes:
        memory: Bytes of address space beyond what it has now.
        seconds: Of processor time.
        user: Numbers of the user and group to become, or None to stay.
    """

    memory: int
    seconds: int
    user: tuple[int, int] | None = None


@dataclass(frozen=True)
class InForce:
    """What holds from now on.

    Attributes:
        network: How the network was cut off; empty if it was not.
        others: Whatever else holds.
    """

    network: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def leave() -> InForce:
    """Leave the network and the right to write files, for good.

    To be called while there is one thread: what comes later inherits it, what was there does not.
    A process of several threads may not even enter a user namespace.
    """
    with suppress(OSError):  # memory that runs out is then taken from this process first
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    network = ("network namespace",) if _leave_network() else ()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    others = ("no writing (landlock)",) if _forbid_writing() else ()
    return InForce(network, others)


def confine(limits: Limits, left: InForce) -> InForce:
    """Confine the calling process, all its threads, for good.

    Args:
        limits: What it may take.
        left: What `leave` put in force.

    Returns:
        What is in force altogether.

    Raises:
        OSError: A limit that every kernel has could not be set.
    """
    network, others = [*left.network], [*left.others]
    if limits.user is not None and _become(*limits.user):
        others.append("unprivileged user")
    _limit(limits)
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if _filter_calls():
        network.append("seccomp")
        others.append("no other processes (seccomp)")
    return InForce(tuple(network), tuple(others))


def _limit(limits: Limits) -> None:
    fixed = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, _THREADS),
        (resource.RLIMIT_CPU, limits.seconds),
        (resource.RLIMIT_AS, _address_space() + limits.memory),
    )
    for kind, value in fixed:
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


def _address_space() -> int:
    """Return the bytes of address space that this process has mapped."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except OSError:  # no /proc: the interpreter and its libraries have to do with the rest
        return 0
    return pages * resource.getpagesize()


def _leave_network() -> bool:
    """Move to a network of one's own, which has no interfaces: as root, or in a user namespace.

    A root that may not do the former must not do the latter: nobody is anybody in there, so that
    it could not become another user and would keep the right to read what is root's.
    """
    if _call("unshare", _CLONE_NEWNET):
        return True
    return os.geteuid() != 0 and _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)


def _become(user: int, group: int) -> bool:
    try:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    except PermissionError:  # a root without its capabilities, as in a container
        return False
    return _prctl(_PR_SET_DUMPABLE, 1)  # else /proc/self, with the files it was given, is root's


# --- landlock: no file may be written, made or removed, whoever one is ---

_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # the same numbers on every machine
_LANDLOCK_VERSION = 1
# Rights from WRITE_FILE (bit 1) on, without READ_FILE and READ_DIR (bits 2, 3); EXECUTE is bit 0.
_FILES = {1: 0x1FF3, 2: 0x3FF3, 3: 0x7FF3, 5: 0xFFF3}
_TCP = 0x3  # bind, connect


def _forbid_writing() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if abi < 1:
        return False
    files = max(rights for since, rights in _FILES.items() if since <= abi)
    rules = struct.pack("<Q", files) if abi < 4 else struct.pack("<QQ", files, _TCP)  # noqa: PLR2004
    descriptor = libc.syscall(_LANDLOCK_CREATE, rules, len(rules), 0)
    if descriptor < 0:
        return False
    try:
        return bool(libc.syscall(_LANDLOCK_RESTRICT, descriptor, 0) == 0)
    finally:
        os.close(descriptor)


# --- seccomp: system calls that loading a model does not need ---


@dataclass(frozen=True)
class _Machine:
    """What a filter of system calls has to know of a machine.

    Attributes:
        audit: Its number, as the kernel checks it.
        clone: The call that makes threads and, which is forbidden, processes.
        seccomp: The call that puts a filter in force.
        forbidden: Calls that fail.
        only_below: Numbers from here on are of another set of calls, and fail.
    """

    audit: int
    clone: int
    seccomp: int
    forbidden: tuple[int, ...]
    only_below: int = 1 << 31


# socket, socketpair, fork, vfork, execve, kill, ptrace, mount, umount2, add_key, request_key,
# keyctl, unshare, perf_event_open, open_by_handle_at, setns, process_vm_readv and _writev, bpf,
# execveat, userfaultfd, and io_uring_setup, which could do all of it anew.
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        56,
        317,
        (
            *(41, 53, 57, 58, 59, 62, 101, 165, 166, 248, 249, 250, 272, 298, 304, 308, 310, 311),
            *(321, 322, 323, 425),
        ),
        0x40000000,
    ),
    "aarch64": _Machine(
        0xC00000B7,
        220,
        277,
        (
            *(198, 199, 221, 129, 117, 40, 39, 217, 218, 219, 97, 241, 265, 268, 270, 271),
            *(280, 281, 282, 425),
        ),
    ),
}
_CLONE3 = 435  # its flags are out of a filter's sight: libraries fall back to clone
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter_calls() -> bool:
    machine = _MACHINES.get(platform.machine())
    if machine is None or struct.calcsize("P") != 8:  # noqa: PLR2004 - 64-bit processes only
        return False
    code = _program(machine)
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    call = (machine.seccomp, _SECCOMP_FILTER, _ALL_THREADS, ctypes.byref(program))
    return bool(libc.syscall(*call) == 0)  # else a thread's number: that one could not be had


def _program(machine: _Machine) -> bytes:
    """Return the filter, as instructions of the kernel's packet filter."""
    fail = (_RETURN, 0, 0, _FAIL | _EPERM)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, machine.audit),
        fail,
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, machine.only_below),
        fail,
        (_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, _FAIL | _ENOSYS),
    ]
    for number in machine.forbidden:
        lines += [(_EQUAL, 0, 1, number), fail]
    lines += [
        (_EQUAL, 0, 3, machine.clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        fail,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _prctl(option: int, value: int) -> bool:
    return _call("prctl", option, value, 0, 0, 0)


def _call(name: str, *arguments: int) -> bool:
    function: Callable[..., int] = getattr(ctypes.CDLL(None, use_errno=True), name)
    return function(*(ctypes.c_ulong(argument) for argument in arguments)) == 0

"""Manifests: a large directory recorded as one file that lists its files by digest.

A link that listed every file of a data set would be as large as a model. Instead the step's
material or product is the manifest, and whoever attests recomputes it from the directory first.
The format is that of `sha256sum`, so that anybody can check one: ``<sha256>  <path>`` a line,
paths relative to the directory, sorted by code point.
"""

import hashlib
from pathlib import Path, PurePosixPath

from modelward.errors import Gate, Refused, UsageError
from modelward_repo.supply_chain.hasher import Progress, hash_files, no_progress, relative

_PATH = 64 + 2  # where the path begins in a line


def manifest(workspace: Path, directory: str, progress: Progress = no_progress) -> bytes:
    """Return the manifest of a directory.

    Args:
        workspace: Directory that holds it.
        directory: Its path, relative to the workspace.
        progress: Told how far hashing is.

    Raises:
        UsageError: The directory is missing or empty, or a path is not fit for evidence.
        Refused: It holds, or is reached by, a symbolic link; it holds a special file; or it
            changed meanwhile.
    """
    prefix = relative(workspace, directory)
    if not (workspace / prefix).is_dir():
        raise UsageError(f"{directory} is not a directory")
    digests = hash_files(workspace, [prefix], progress)
    lines = (
        f"{digest}  {PurePosixPath(path).relative_to(prefix)}\n" for path, digest in digests.items()
    )
    return "".join(lines).encode()


def check_manifest(
    workspace: Path, directory: str, file: str, sha256: str, progress: Progress = no_progress
) -> None:
    """Require that a file is the manifest of a directory as it is now.

    Args:
        workspace: Directory that holds both.
        directory: Path of the directory, relative to the workspace.
        file: Path of the manifest, relative to the workspace.
        sha256: Digest under which the manifest is to be recorded.
        progress: Told how far hashing is.

    Raises:
        UsageError: The directory cannot be read.
        Refused: The directory is not what the manifest says.
    """
    expected = manifest(workspace, directory, progress)
    if hashlib.sha256(expected).hexdigest() == sha256:
        return
    differing = {*(workspace / file).read_bytes().splitlines()} ^ {*expected.splitlines()}
    names = sorted({line.decode("utf-8", "replace")[_PATH:] for line in differing} - {""})
    raise Refused(
        Gate.SUPPLY_CHAIN,
        f"{directory} is not what {file} says"
        + (f": {len(names)} files differ, the first is {names[0]!r}" if names else ""),
        f"find out what changed; if that was meant: modelward-repo manifest {directory} -o {file}",
    )

"""A stand-alone proof that a release was logged, for whoever has nothing but a root."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelward.errors import UsageError
from modelward.formats import release as releases
from modelward.formats.names import check_name, check_version
from modelward_repo.log.reader import LogReader, read_repository
from modelward_repo.publish.target import Source
from modelward_repo.roles.policy import role_name


@dataclass(frozen=True)
class Proof:
    """A proof, and what it takes to follow it down to a release.

    Attributes:
        data: The tlog-proof file; its `extra` line is the leaf.
        documents: Root, snapshot, role and release, by file names: each holds the next one's
            digest, and the leaf those of the first two.
        index: Index of the leaf.
        size: Leaves of the tree.
    """

    data: bytes
    documents: Mapping[str, bytes]
    index: int
    size: int


def prove(source: Source, model: str, version: str) -> Proof:
    """Prove that what is published now, a release in it, was logged.

    Args:
        source: The repository, and the root to trust.
        model: The model.
        version: The version.

    Raises:
        UsageError: There is no such release.
        Refused: A device would refuse the repository, or its proof.
        Unavailable: Something could not be fetched, or too few witnesses cosigned.
    """
    try:
        check_name(model)
        check_version(version)
    except ValueError as error:
        raise UsageError(str(error)) from error
    reader = LogReader(source)
    path = releases.target_path(model, version)
    role = role_name(model)
    with read_repository(source) as (repository, shown):
        release = repository.target(path, releases.CAP)
        if release is None:
            raise UsageError(f"{model} {version} is not published there")
        shown.verify(reader, None)
        if shown.proof is None:
            raise RuntimeError("verified without a proof")
        proof = replace(shown.proof.proof, extra=shown.leaf.to_bytes())
        documents = {
            "root.json": shown.documents["root"],
            "snapshot.json": shown.documents["snapshot"],
            f"{role}.json": repository.cache.file(role).read_bytes(),
            "release.json": release,
        }
    return Proof(proof.to_bytes(), documents, proof.index, proof.checkpoint.checkpoint.size)

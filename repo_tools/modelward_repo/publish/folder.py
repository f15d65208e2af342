"""The short path: a folder becomes a release, with all keys at hand.

For the supply chain of layouts/minimal.toml: one party packages, another approves. Where the two
sit on different machines, each runs `modelward-repo attest` there instead.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from securesystemslib.signer import Signer
from tuf.api.metadata import Targets

from modelward.errors import Gate, UsageError
from modelward.examine import at_gate
from modelward.formats import dsse
from modelward.formats import policy as policies
from modelward.formats.policy import ModelPolicy
from modelward.formats.release import Release
from modelward.formats.ticket import FILE as TICKET_FILE
from modelward.formats.ticket import Ticket
from modelward.trust import model_format
from modelward.trust.layout import FINAL_STEP, Layout
from modelward_repo.publish.bundle import known_format, open_reader
from modelward_repo.publish.cache import Cache
from modelward_repo.publish.staging import Staging
from modelward_repo.roles.keys import KeyFile, Passphrase, find_keys
from modelward_repo.roles.policy import role_name
from modelward_repo.supply_chain.attest import attest
from modelward_repo.supply_chain.hasher import Known, Progress, hash_files
from modelward_repo.supply_chain.layout import FUNCTIONARY

BUNDLE = "bundle"
PACKAGE = "package"


@dataclass(frozen=True)
class Terms:
    """What a model's releases must prove, as the repository has it.

    Attributes:
        policy: The model's policy.
        layout: Its layout, signed.
    """

    policy: ModelPolicy
    layout: dsse.Envelope

    @classmethod
    def of(cls, staging: Staging, model: str) -> "Terms":
        """Read them.

        Raises:
            UsageError: The repository has no such model.
        """
        staging.targets(role_name(model))  # says so if there is no such model
        policy = staging.target(Targets.type, policies.model_policy_path(model)) or b""
        layout = staging.target(Targets.type, policies.layout_path(model)) or b""
        return cls(ModelPolicy.parse(policy), dsse.Envelope.parse("layout", layout))


@dataclass(frozen=True)
class Functionary:
    """Somebody who does a step.

    Attributes:
        step: The step.
        key: The key file.
        signer: The key, opened.
    """

    step: str
    key: KeyFile
    signer: Signer


def functionaries(terms: Terms, keys: Path, passphrase: Passphrase) -> list[Functionary]:
    """Return who packages and who approves, as many as the layout demands.

    Raises:
        UsageError: The layout has other steps, or keys are not here.
    """
    layout = Layout.from_content(terms.layout.content)
    steps = [step.name for step in layout.steps]
    if steps != [PACKAGE, FINAL_STEP]:
        raise UsageError(
            f"the layout has the steps {', '.join(steps)}, not just {PACKAGE} and {FINAL_STEP}",
            "do each step with `modelward-repo attest`, then publish with `modelward-repo publish`",
        )
    here = {
        key.public().keyid: key
        for key in find_keys(keys)
        if key.path.stem == FUNCTIONARY and key.exists()
    }
    found = []
    for step in layout.steps:
        able = [here[keyid] for keyid in step.functionaries if keyid in here]
        if len(able) < step.threshold:
            raise UsageError(
                f"{step.threshold} functionaries must do the step {step.name!r}, but the keys of "
                f"only {len(able)} are in {keys}",
                "have the others attest where their keys are: `modelward-repo attest`",
            )
        found += [
            Functionary(step.name, key, key.signer(passphrase)) for key in able[: step.threshold]
        ]
    return found


def check_folder(folder: Path) -> None:
    """Find out early, before any key is opened, whether a folder can be released.

    Raises:
        UsageError: It is none, has a ticket already, or a file that no device would load.
        FormatError: A file is not what its suffix says.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a directory", "name the folder with the model's files")
    if (folder / TICKET_FILE).exists():
        raise UsageError(
            f"{folder} has a {TICKET_FILE} already: it was packaged for a release before",
            "publish it with `modelward-repo publish`, or take the file away to release it anew",
        )
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            with at_gate(Gate.POLICY), open_reader(path, name) as reader:
                model_format.check(known_format(name), reader)


def is_released(
    release: Release, folder: Path, progress: Progress, known: Known | None = None
) -> bool:
    """Tell whether a release has exactly the folder's files, beside its ticket.

    Raises:
        UsageError: The folder cannot be hashed.
    """
    released = {file.path: file.blob.sha256 for file in release.files if file.path != TICKET_FILE}
    return released == hash_files(folder, ["."], progress, known)


@contextmanager
def workspace(folder: Path, ticket: Ticket, beside: Path, cache: Cache) -> Iterator[Path]:
    """Give a workspace whose bundle is the folder's files and a ticket; the folder stays as it is.

    Args:
        folder: The files.
        ticket: What they are to become.
        beside: Where to make it: a place with room for the files, unlike perhaps /tmp.
        cache: What was hashed before: giving a file a second name must not make it unknown.
    """
    linked: list[Path] = []

    def copy(source: str, target: str) -> str:
        before = Path(source).lstat()
        if _link_or_copy(source, target):
            linked.append(Path(source))
            cache.carry(before, Path(source).lstat())
        return target

    with TemporaryDirectory(prefix=".workspace-", dir=beside) as directory:
        place = Path(directory)
        # Links stay links, for the hasher to refuse: what they point to is not the folder's.
        shutil.copytree(folder, place / BUNDLE, symlinks=True, copy_function=copy)
        (place / BUNDLE / TICKET_FILE).write_bytes(ticket.to_bytes())
        yield place
        before = [path.lstat() for path in linked]
    for path, status in zip(linked, before, strict=True):
        cache.carry(status, path.lstat())


def attest_steps(  # noqa: PLR0913 - the last two only tell people what goes on
    place: Path,
    terms: Terms,
    people: list[Functionary],
    now: datetime,
    *,
    progress: Progress,
    told: Callable[[Functionary], None],
    known: Known | None = None,
) -> bytes:
    """Package and approve; return evidence.jsonl.

    Args:
        place: The workspace.
        terms: What must be proven.
        people: Who does it, in the order of steps.
        now: The time to judge the layout by.
        progress: Told how far hashing is.
        told: Told of each link as it is signed.
        known: What was hashed before, and need not be again; None to hash everything.

    Raises:
        Refused: The layout does not allow it.
    """
    links: list[dsse.Envelope] = []
    for person in people:
        link = attest(
            person.step,
            workspace=place,
            materials=[] if person.step == PACKAGE else [BUNDLE],
            products=[BUNDLE],
            manifests=[],
            command=[],
            signer=person.signer,
            layout=terms.layout,
            policy=terms.policy,
            links=links,
            now=now,
            progress=progress,
            known=known,
        )
        links.append(link)
        told(person)
    return b"".join(sorted(link.to_bytes() for link in links))


def _link_or_copy(source: str, target: str) -> bool:
    """Hard-link where that is possible, which costs nothing; copy where it is not."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
        return False
    return True

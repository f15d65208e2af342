"""The proof of a release that was kept when it was installed, verified again."""

from datetime import UTC, datetime

from modelward.device import Device
from modelward.errors import Gate, Refused
from modelward.formats import Unverified, dsse
from modelward.formats.installed import Slot
from modelward.formats.policy import ModelPolicy
from modelward.install.opened import Folder
from modelward.trust import supply_chain
from modelward.trust.supply_chain import Attested


def of(device: Device, model: str, slot: Slot) -> tuple[Attested, str | None]:
    """Verify the kept proof of a slot again.

    Returns:
        The proof, and what would be refused if the release came today, or None.

    Raises:
        Refused: The proof does not hold.
    """
    release, _ = device.slots.release(model, slot)
    folder = device.slots.directory(model, slot)

    def kept(name: str) -> bytes:
        try:
            with Folder(folder) as opened:
                return opened.read(name, dsse.EVIDENCE_CAP)
        except OSError as error:
            raise Refused(
                Gate.INSTALL,
                f"the proof of {model} cannot be read: {error}",
                "set the device up again, and find out who deleted it",
            ) from error

    policy = ModelPolicy.parse(kept("policy.json"))
    layout = dsse.Envelope.parse("layout", kept("layout.json"))
    evidence = dsse.parse_evidence(kept("evidence.jsonl"))
    claimed = Unverified(release)
    try:
        return supply_chain.verify(claimed, evidence, layout, policy, device.clock()), None
    except Refused as error:
        # An expired layout does not undo what was proven when it was in force.
        in_force = datetime.min.replace(tzinfo=UTC)
        return supply_chain.verify(claimed, evidence, layout, policy, in_force), error.reason

"""Gates 5 to 8 for all models of a device at once: what may move, what has to move with it.

`modelward.trust.rollout` decides for one model, `modelward.examine` judges one release. This is
what depends on the device as a whole: pins, failures, kept slots, components.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from modelward.device import Device
from modelward.errors import FormatError, Gate, Refused
from modelward.examine import Examined, at_gate, examine, required
from modelward.formats import channel as channels
from modelward.formats import policy as policies
from modelward.formats import release as releases
from modelward.formats.channel import Channel
from modelward.formats.floors import Floors
from modelward.formats.installed import Installed, Slot
from modelward.formats.journal import Journal, Pin
from modelward.formats.policy import FleetPolicy
from modelward.formats.release import Blob, Release
from modelward.transfer import fetch
from modelward.transfer.sources import Sources
from modelward.trust.repository import Repository
from modelward.trust.rollout import Decision


@dataclass(frozen=True)
class Offer:
    """What one state of a repository offers to a channel.

    Attributes:
        repository: The repository, refreshed.
        fleet: Policy for the fleet.
        channel: Which version is meant for which devices.
    """

    repository: Repository
    fleet: FleetPolicy
    channel: Channel

    @classmethod
    def of(cls, repository: Repository, channel: str) -> "Offer":
        """Read what a repository offers to the channel of that name.

        Raises:
            Refused: There is no such channel, or a document is not valid.
            Unavailable: A document could not be fetched.
        """
        with at_gate(Gate.METADATA):
            fleet = FleetPolicy.parse(required(repository, FleetPolicy.TARGET, policies.CAP))
        with at_gate(Gate.CHANNEL):
            if channel not in fleet.channels:
                raise Refused(
                    Gate.CHANNEL,
                    f"there is no channel {channel!r}",
                    f"set the device's channel to one of {', '.join(fleet.channels)}",
                )
            document = required(repository, channels.target_path(channel), channels.CAP)
            found = Channel.parse(document)
            if found.name != channel:
                raise Refused(Gate.CHANNEL, f"the document of {channel!r} is one of {found.name!r}")
        return cls(repository, fleet, found)


@dataclass(frozen=True)
class Moves:
    """The models that move in one switch.

    Attributes:
        examined: Those that move to a release which passed gates 6 to 8.
        kept: Those that go back to a slot which ran here before.
    """

    examined: Mapping[str, Examined]
    kept: Mapping[str, Slot]

    @property
    def releases(self) -> list[Release]:
        """The releases that are new here."""
        return [item.release for item in self.examined.values()]

    @property
    def versions(self) -> dict[str, str]:
        """The version that each model moves to."""
        new = {model: item.release.version for model, item in self.examined.items()}
        return new | {model: slot.version for model, slot in self.kept.items()}


@dataclass(frozen=True)
class Visit:
    """One device's visit to one state of a repository.

    Attributes:
        device: The device.
        installed: What is installed on it.
        journal: What failed on it, and what it was told.
        offer: What the repository offers.
        sources: Where small blobs come from.
        floors: The least that is accepted.
        now: Trusted time.
    """

    device: Device
    installed: Installed
    journal: Journal
    offer: Offer
    sources: Sources
    floors: Floors
    now: datetime

    def held_back(self, model: str, decision: Decision, *, retry: bool) -> Decision:
        """Return the decision, unless this device holds it back: by a pin, or after a failure."""
        if decision.version is None or self._is_installed(model, decision.version):
            return decision
        pin = self._pin(model)
        if pin:
            return Decision(None, f"it is held at {pin.slot.version}: {pin.reason}")
        digest = self._digest(model, decision.version)
        failure = self.journal.failed.get(digest) if digest else None
        if failure and failure.blocks(self.now) and not retry:
            held = self._instead(model, decision.version) or Decision(None, str(failure))
            return replace(held, for_now=failure.wait is not None)
        return decision

    def _instead(self, model: str, version: str) -> Decision | None:
        """Return what is kept, if what runs is revoked and what is offered does not work here."""
        before = self.offer.channel.models[model].previous
        if not before or before == version or not self._kept({model: before}):
            return None
        return Decision(before, f"{version} failed on this device, and what runs is revoked")

    def revoked(self, generations: Iterable[Installed]) -> set[str]:
        """Return the digests of the releases in generations that the channel has revoked."""
        models = self.offer.channel.models
        return {
            slot.sha256
            for installed in generations
            for model, slot in installed.slots()
            if model in models and slot.version in models[model].revoked
        }

    def _pin(self, model: str) -> Pin | None:
        """Return what holds a model where it is; what is revoked is not held."""
        pin, entry = self.journal.pins.get(model), self.offer.channel.models.get(model)
        if pin is None or pin.slot != self.installed.active.get(model):
            return None
        return None if entry and pin.slot.version in entry.revoked else pin

    def _kept(self, wanted: Mapping[str, str]) -> dict[str, Slot]:
        """Return the slots to go back to: of models whose running version was revoked.

        A release that ran here was verified and approved. Its counter lies below the floor, but
        that concerns what comes over the network.
        """
        found = {}
        for model, version in wanted.items():
            running, slot = self.installed.active.get(model), self.installed.previous.get(model)
            revoked = running and running.version in self.offer.channel.models[model].revoked
            same = slot is not None and slot.version == version
            if slot and same and revoked and self._digest(model, version) == slot.sha256:
                found[model] = slot
        return found

    def offered(self) -> Iterator[Release]:
        """Yield the releases that the channel offers, and the components they pin.

        That says nothing of whether any of them is approved, or meant for this device.

        Raises:
            Refused: A role's metadata, or a document, is not valid.
            Unavailable: One of them could not be fetched.
        """
        queue = []
        for model, entry in self.offer.channel.models.items():
            queue.append((model, entry.version))
            running = self.installed.active.get(model)
            if entry.previous and (running is None or running.version in entry.revoked):
                queue.append((model, entry.previous))
        seen = set()
        while queue:
            model, version = queue.pop(0)
            if (model, version) in seen:
                continue
            seen.add((model, version))
            document = self.offer.repository.target(
                releases.target_path(model, version), releases.CAP
            )
            with suppress(FormatError):  # nobody will ever install it
                release = Release.parse(document or b"")
                yield release
                queue += release.requires.components

    def examine_all(self, wanted: Mapping[str, str], passed: Callable[[Gate, str], None]) -> Moves:
        """Examine each release that is wanted and not here, and the components it pins.

        Args:
            wanted: Versions by model.
            passed: Is told what each gate finds.

        Raises:
            Refused: A gate said no.
            Unavailable: Something could not be had.
        """
        kept = self._kept(wanted)
        found: dict[str, Examined] = {}
        queue = {model: version for model, version in wanted.items() if model not in kept}
        chosen = dict(wanted)
        while queue:
            model, version = queue.popitem()
            if self._is_installed(model, version):
                continue
            found[model] = self._examine(model, version)
            for gate, finding in found[model].findings:
                passed(gate, f"{model} {version}: {finding}")
            for component, pinned in found[model].release.requires.components:
                self._check_wanted(model, component)
                if chosen.setdefault(component, pinned) != pinned:
                    raise Refused(
                        Gate.RELEASE,
                        f"{model} {version} needs {component} {pinned}, but "
                        f"{chosen[component]} is meant for this device",
                        "release both so that they agree",
                    )
                if component not in found and component not in kept:
                    queue[component] = pinned
        self._check_held(found)
        moves = Moves(found, kept)
        self._check_components(moves)
        return moves

    def _check_wanted(self, model: str, component: str) -> None:
        """Refuse a component that this device is not meant to run (attack row 9)."""
        models = self.device.config.models
        if models and component not in models:
            raise Refused(
                Gate.POLICY,
                f"{model} needs the model {component}, which this device is not configured for",
                f"add {component!r} to `models` in modelward.toml if it is to run here",
            )

    def _is_installed(self, model: str, version: str) -> bool:
        slot = self.installed.active.get(model)
        return slot is not None and self._digest(model, version) == slot.sha256

    def _digest(self, model: str, version: str) -> str | None:
        """Return the digest of a release's document, as its role signed it."""
        info = self.offer.repository.target_info(releases.target_path(model, version))
        return info.hashes.get("sha256") if info else None

    def _examine(self, model: str, version: str) -> Examined:
        slot = self.installed.active.get(model)
        return examine(
            self.offer.repository,
            self.offer.fleet,
            model,
            version,
            fetch_blob=self._small_blob,
            facts=self.device.facts,
            floor=self.floors.least(model, slot.counter if slot else None),
            now=self.now,
        )

    def _small_blob(self, blob: Blob) -> bytes:
        data = self.device.store.read(blob) if self.device.store.has(blob) else None
        if data is None:
            data = fetch.fetch_small(self.sources, blob)
        return data

    def _check_held(self, found: Mapping[str, Examined]) -> None:
        """Refuse to move a component that the operator holds where it is."""
        for model, item in found.items():
            pin = self._pin(model)
            if pin:
                raise Refused(
                    Gate.RELEASE,
                    f"{model} {item.release.version} is needed, but {model} is held at "
                    f"{pin.slot.version}: {pin.reason}",
                    f"run `modelward unpin {model}` if it may move",
                )

    def _check_components(self, moves: Moves) -> None:
        """Refuse to break a model that stays by moving a component that it needs."""
        moving = moves.versions
        for model, running in self.installed.active.items():
            if model in moves.examined:
                continue
            slot = moves.kept.get(model, running)
            release, _ = self.device.slots.release(model, slot)
            for component, needed in release.requires.components:
                if moving.get(component, needed) != needed:
                    raise Refused(
                        Gate.RELEASE,
                        f"{model} {slot.version} needs {component} {needed}, which would become "
                        f"{moving[component]}",
                        f"release a {model} for the new {component} too",
                    )

"""A device's state directory with releases installed in it, without a repository."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from modelward.config import FILE, from_settings
from modelward.device import Device
from modelward.install.slots import Installed, Slot
from tests.simulator.chain import NOW, HonestChain, People

MODEL = "meter-reader"
SHARED = b"the same in every version"
PEOPLE = People()


def chain(version: str, counter: int, model: str = MODEL, **files: bytes) -> HonestChain:
    """Return a release, with its proof: one file of its own, one shared, one deep down."""
    bundle = {
        "model.onnx": f"weights of {version}".encode(),
        "shared.json": SHARED,
        "a/b/deep.txt": version.encode(),
        **files,
    }
    return HonestChain("minimal", model, version, counter, bundle=bundle, people=PEOPLE)


def documents(item: HonestChain) -> dict[str, bytes]:
    """Return what is kept beside a release, by file name."""
    return {
        "evidence.jsonl": item.evidence_bytes(),
        "layout.json": item.layout.to_bytes(),
        "policy.json": item.policy.to_bytes(),
    }


class Site:
    """A device that was set up and is asked to install releases."""

    def __init__(self, state: Path, now: datetime = NOW) -> None:
        self.state = state
        settings = {"repository": "https://example.com", "device_id": "test"}
        config = from_settings(state, settings)
        for folder in ("tuf", "store", "slots", "generations"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        (state / FILE).write_text(config.to_toml())
        self.now = now
        self.boot = "first"
        self.uptime = 0
        self.device = Device(
            config, clock=lambda: self.now, boot=lambda: self.boot, uptime=lambda: self.uptime
        )
        self.trials = self.device.trials
        self.store = self.device.store
        self.slots = self.device.slots

    def bring(self, item: HonestChain) -> None:
        """Bring a release's blobs into the store."""
        for file in item.release.files:
            if not self.store.has(file.blob):
                self.store.add(file.blob, [memoryview(item.content[file.path])])

    def stage(self, item: HonestChain) -> Slot:
        """Bring a release's blobs and stage it."""
        self.bring(item)
        return self.slots.stage(item.release, item.release.to_bytes(), documents(item))

    def install(self, *items: HonestChain) -> Installed:
        """Install releases as an update does, from recovery to collection."""
        self.trials.recover(self.now)
        return self.commit({item.model: self.stage(item) for item in items})

    def commit(self, slots: Mapping[str, Slot]) -> Installed:
        """Switch to staged slots, confirm them, and drop what nobody wants."""
        self.trials.begin(slots)
        installed = self.trials.switch(slots, 0, confirmed=True)
        self.trials.commit()
        self.trials.collect()
        return installed

    def try_out(self, *items: HonestChain, soak: timedelta) -> None:
        """Take releases on trial as an update does."""
        self.trials.recover(self.now)
        slots = {item.model: self.stage(item) for item in items}
        self.trials.begin(slots)
        self.trials.switch(slots, int(soak.total_seconds()), confirmed=False)

    def tree(self) -> dict[str, tuple[int, bytes]]:
        """Return everything that is on disk: mode and content by path."""
        return {
            str(path.relative_to(self.state)): (path.lstat().st_mode, _content(path))
            for path in sorted(self.state.rglob("*"))
        }

    def file(self, path: str, model: str = MODEL) -> Path:
        """Return an active release's file."""
        return self.state / "current" / model / path

    def versions(self, model: str = MODEL) -> tuple[str | None, str | None]:
        """Return the version that runs and the one to fall back to."""
        installed = self.slots.installed()
        found = (installed.active.get(model), installed.previous.get(model))
        return tuple(slot.version if slot else None for slot in found)  # type: ignore[return-value]

    def problems(self) -> list[tuple[str, str]]:
        """Hash everything that is installed."""
        installed = self.slots.installed()
        kinds = (installed.active, installed.previous)
        return [
            problem
            for kind in kinds
            for model, slot in kind.items()
            for problem in self.slots.problems(model, slot)
        ]

    def leftovers(self) -> list[Path]:
        """Return what nobody needs: temporary files, generations and slots not in use."""
        installed = self.slots.installed()
        used = {f"slots/{model}/{slot.name}" for kind in (installed.active, installed.previous)
                for model, slot in kind.items()}  # fmt: skip
        used.add(f"generations/{installed.number}")
        kept = [*self.state.glob("slots/*/*"), *self.state.glob("generations/*")]
        return [
            *(path for path in self.state.rglob(".tmp-*")),
            *(path for path in kept if str(path.relative_to(self.state)) not in used),
        ]


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return bytes(path.readlink())
    return path.read_bytes() if path.is_file() else b""

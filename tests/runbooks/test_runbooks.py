"""Every runbook's commands, word for word, in a fleet that saw the state before."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.repo_tools.softhsm import MODULE, SoftHsm, unload
from tests.runbooks.fleet import INIT, MODEL, PIN, ROOT, Fleet
from tests.runbooks.page import PAGES, Page, is_shown
from tests.runbooks.thefts import Loot, keyid
from tests.runbooks.warm import warm
from tests.simulator.model_files import onnx_file
from tests.simulator.server import Server

WORDS = {"lost", "gone", "theft", "aged", "token", "start", "root"}
ECDSA = {"ml-dsa-65": "ecdsa-sha2-nistp256"}


@pytest.mark.parametrize(
    ("path", "instead"),
    [
        *(pytest.param(path, {}, id=path.stem) for path in PAGES),
        *(
            pytest.param(path, ECDSA, id=f"{path.stem}-ecdsa")
            for path in PAGES
            if path.stem == "algorithm-migration"
        ),
    ],
)
def test_runbook(
    path: Path,
    instead: dict[str, str],
    template: Fleet,
    commands: Path,
    tmp_path: Path,
) -> None:
    page = Page.read(path)
    assert set(page.assumes) <= WORDS
    if "aged" in page.assumes and not shutil.which("faketime"):
        pytest.skip("faketime is not installed")
    if "token" in page.assumes and not (MODULE and shutil.which("softhsm2-util")):
        pytest.skip("SoftHSM2 is not installed: apt-get install softhsm2 opensc")
    fleet = assumed(page, template, commands, tmp_path)
    with ExitStack() as stack:
        server = None
        if page.assumes.get("start") != "nothing":
            server = stack.enter_context(Server(fleet.repository))
            saw_the_state_before(page, fleet, server)
        gone = {name: keyid(fleet.keys, name) for name in listed(page, "gone")}
        assert set(gone.values()) <= (fleet.trusted() if gone else set())
        lose(page, fleet)

        shown = fleet.transcript = ""
        for block in page.blocks:
            if block.machine is None:
                for line in block.text.strip().splitlines():
                    assert is_shown(line, fleet.transcript), f"{line!r} not in:\n{fleet.transcript}"
                continue
            if block.machine == "device" and server is None:
                server = stack.enter_context(Server(fleet.repository))
                set_up_new_device(page, fleet, server, "state")
            script = block.text
            for old, new in instead.items():
                script = script.replace(old, new)
            fleet.do(block.machine, script)
            shown += script

        (tmp_path / "transcript.txt").write_text(fleet.transcript)
        assert "modelward update" in shown, "no device was asked"
        if gone:
            assert not set(gone.values()) & fleet.trusted()
        assert server
        follows(page, fleet, server)


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/runbooks/README.md").read_text("utf-8")
    assert [path.name for path in PAGES if f"({path.name})" not in index] == []


def assumed(page: Page, template: Fleet, commands: Path, tmp_path: Path) -> Fleet:
    """Return a fleet as the page's header describes it."""
    place = tmp_path / "fleet"
    if page.assumes.get("start") == "nothing":
        return Fleet.machines(place, commands)
    fleet = aged(page, place, commands) if "aged" in page.assumes else template.copy(place)
    if "token" in page.assumes:
        hsm = SoftHsm.make(tmp_path / "hsm")
        hsm.token(page.assumes["token"], PIN)
        unload()
        fleet.env = {**fleet.env, **hsm.env}
    return fleet


def aged(page: Page, place: Path, commands: Path) -> Fleet:
    """Return a fleet whose offline roles were signed long ago."""
    with warm(place.parent / "then", "faketime", "-f", f"-{page.assumes['aged']}d") as then:
        fleet = Fleet.machines(place, then)
        fleet.do("repository", INIT)
    fleet.commands = commands
    fleet.hand_out()
    fleet.do("repository", f"modelward-repo refresh channels model-{MODEL} -r my-repo")
    release(fleet, "1.0.0")
    assert fleet.at("repository", "modelward-repo status -r my-repo").code == 1
    with Server(fleet.repository) as server:
        fleet.set_up_device(server.url, fleet.repository / "metadata/1.root.json")
    return fleet


def saw_the_state_before(page: Page, fleet: Fleet, server: Server) -> None:
    """Have the device see the world as it was before, the thief's doings included."""
    fleet.move_device(server.url)
    fleet.do("device", "modelward update")
    theft = page.assumes.get("theft")
    if theft == "fast-forward":
        Loot(fleet).fast_forward()
        fleet.do("device", "modelward update")
    elif theft == "release":
        Loot(fleet).add_release()
        fleet.do("device", "modelward update")
    elif theft == "channels":
        release(fleet, "1.1.0")
        fleet.do("device", "modelward update")
        Loot(fleet).point_back()
        assert fleet.at("device", "modelward update").code == 3


def lose(page: Page, fleet: Fleet) -> None:
    for holder in listed(page, "lost"):
        shutil.rmtree(fleet.place / holder / "keys")


def set_up_new_device(page: Page, fleet: Fleet, server: Server, state: str) -> None:
    root = fleet.repository / f"metadata/{page.assumes.get('root', 1)}.root.json"
    fleet.set_up_device(server.url, root, state)


def follows(page: Page, fleet: Fleet, server: Server) -> None:
    """Require that the old device and a new one follow, now and at the next release."""
    set_up_new_device(page, fleet, server, "new-device")
    assert fleet.at("repository", "modelward-repo status -r my-repo").code == 0
    release(fleet, "2.0.0")
    for state in ("state", "new-device"):
        done = fleet.do(
            "device", f"modelward update --state {state}\nmodelward verify --state {state}"
        )
        assert f"{MODEL} is now 2.0.0" in done.shown


def release(fleet: Fleet, version: str) -> None:
    folder = fleet.place / "repository/next-release"
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(onnx_file(f"weights of {version}".encode()))
    fleet.do("repository", f"modelward-repo release {MODEL} {version} next-release -r my-repo")


def listed(page: Page, word: str) -> list[str]:
    return [name for name in page.assumes.get(word, "").split(",") if name]

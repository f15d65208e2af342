"""The picture of `explain --svg`: all that it says can be seen."""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelward.explain import Explanation
from modelward.formats.installed import Slot
from modelward.formats.release import Release
from modelward.log_memory import Memory
from modelward.picture import svg
from modelward.trust.supply_chain import Attested, Chain, StepRecord
from modelward.trust.tuf_cache import RoleState

RELEASE = Path(__file__).parent / "vectors/formats/release/good-full.json"
EXPIRES = datetime(2027, 1, 2, tzinfo=UTC)
ROLES = ("root", "timestamp", "snapshot", "targets", "channels", "model-m")
WARNING = "the layout has expired, " * 20
LETTER = 6.5  # pixels, the widest that a letter of 11 pixels is on average


def explanation(*steps: str, matches: tuple[tuple[str, str], ...]) -> Explanation:
    files = {"bundle/model.onnx": "a" * 64}
    chain = Chain(
        ("b" * 64, "c" * 64),
        2,
        EXPIRES,
        tuple(StepRecord(name, 1, ("d" * 64,), files, files) for name in steps),
        matches,
    )
    return Explanation(
        device_id="e" * 32,
        slot=Slot("1.0.0", 1, "f" * 64),
        attested=Attested(Release.parse(RELEASE.read_bytes()), chain),
        roles=tuple(RoleState(name, 7, EXPIRES, 1, ("a" * 64,), ("a" * 64,)) for name in ROLES),
        log=Memory(None, None, {}, ()),
        warning=WARNING,
    )


@pytest.mark.parametrize(
    ("steps", "matches"),
    [
        pytest.param(("package", "approve"), (("approve", "package"),), id="two steps"),
        pytest.param(
            ("open", "data", "train", "package", "approve"),
            (
                ("data", "open"),
                ("train", "data"),
                ("package", "train"),
                ("approve", "package"),
                ("approve", "open"),
            ),
            id="an arrow over three boxes",
        ),
    ],
)
def test_nothing_leaves_the_picture(steps, matches):
    root = ET.fromstring(svg(explanation(*steps, matches=matches)))
    space = "{http://www.w3.org/2000/svg}"
    width, height = int(root.attrib["width"]), int(root.attrib["height"])
    head = root.findall(f"{space}text")
    chart = root.find(f"{space}g")

    assert all(int(t.attrib["x"]) + LETTER * len(t.text) <= width for t in head)
    told = " ".join(text.text for text in head)
    assert all(f"{role} 7: 1 of 1 signed" in told for role in ROLES)
    assert WARNING.strip() in told
    top = int(chart.attrib["transform"].partition(",")[2].rstrip(")"))
    assert top > max(int(text.attrib["y"]) for text in head)
    boxes = list(chart.iter(f"{space}rect"))
    assert len(boxes) == len(steps) + 2
    assert all(top + int(box.attrib["y"]) + int(box.attrib["height"]) <= height for box in boxes)

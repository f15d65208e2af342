"""Gate 8: formats, metric gates, and that a demanded signature is there."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from modelward.errors import FormatError, Gate, Refused
from modelward.formats.policy import FleetPolicy, HealthGate, MetricGate, ModelPolicy
from modelward.formats.release import Blob, Release, ReleaseFile
from modelward.formats.ticket import Ticket
from modelward.trust import policy

FLEET = FleetPolicy(("stable",), ("onnx", "json", "signature"))
GATE = MetricGate("metrics.json", "accuracy", least=0.95)


def release(*files: tuple[str, str], signature: str | None = None) -> Release:
    return Release(
        model="m",
        version="1",
        counter=1,
        released=datetime(2026, 11, 22, tzinfo=UTC),
        ticket=Ticket("m", "1", 1, "nonce"),
        files=tuple(
            ReleaseFile(path, Blob(f"{number:064x}", 1), kind)
            for number, (path, kind) in enumerate(files)
        ),
        signature=signature,
    )


HONEST = release(("model.onnx", "onnx"), ("metrics.json", "json"))


def check(metrics, *gates: MetricGate) -> None:
    content = metrics if isinstance(metrics, bytes) else json.dumps(metrics).encode()
    policy.check_metrics(HONEST, gates or (GATE,), {"metrics.json": content})


@pytest.mark.parametrize("value", [0.95, 0.97, 1])
def test_metric_at_or_above_its_gate(value):
    check({"accuracy": value, "other": 0})


@pytest.mark.parametrize(
    ("gate", "value"),
    [
        (MetricGate("metrics.json", "accuracy", least=0.95), 0.9499999),
        (MetricGate("metrics.json", "accuracy", least=0.95), -1),
        (MetricGate("metrics.json", "accuracy", most=5), 5.1),
        (MetricGate("metrics.json", "accuracy", least=1, most=2), 2.5),
        (MetricGate("metrics.json", "accuracy", least=1, most=2), 0.5),
        (MetricGate("metrics.json", "accuracy", least=2, most=1), 1.5),
    ],
)
def test_metric_outside_its_gate(gate, value):
    with pytest.raises(Refused, match=r"is demanded|is allowed") as refusal:
        check({"accuracy": value}, gate)
    assert refusal.value.gate is Gate.POLICY


@pytest.mark.parametrize(
    "document",
    [
        b'{"accuracy": NaN}',
        b'{"accuracy": Infinity}',
        b'{"accuracy": 1e999}',
        b'{"accuracy": "0.99"}',
        b'{"accuracy": true}',
        b'{"accuracy": [0.99]}',
        b'{"accuracy": 0.1, "accuracy": 0.99}',
        b'{"accuracy": 0.99, "accuracy": 0.1}',
        b'[{"accuracy": 0.99}]',
        b'{"accuracy": 0.99}{}',
        b"",
    ],
)
def test_metrics_that_are_no_numbers(document):
    with pytest.raises(FormatError, match=r"metrics\.json"):
        check(document)


@pytest.mark.parametrize("metrics", [{}, {"Accuracy": 0.99}, {"accuracy ": 0.99}])
def test_metric_that_is_missing(metrics):
    with pytest.raises(Refused, match="does not state 'accuracy'"):
        check(metrics)


def test_metrics_file_that_is_missing():
    with pytest.raises(Refused, match=r"has no 'other\.json'"):
        check({}, MetricGate("other.json", "accuracy", least=1))


def test_all_gates_must_be_met():
    check({"accuracy": 1, "latency": 5}, GATE, MetricGate("metrics.json", "latency", most=5))
    with pytest.raises(Refused, match="latency is 6, at most 5"):
        check({"accuracy": 1, "latency": 6}, GATE, MetricGate("metrics.json", "latency", most=5))


def test_gates_that_were_met_are_described():
    gates = (GATE, MetricGate("metrics.json", "latency", least=1, most=5))
    content = {"metrics.json": b'{"accuracy": 0.97, "latency": 2}'}
    told = policy.describe_metrics(gates, content)
    assert told == "accuracy 0.97 >= 0.95, latency 2 >= 1, latency 2 <= 5"


@pytest.mark.parametrize(
    ("path", "kind", "reason"),
    [
        ("model.gguf", "gguf", "which the fleet does not allow"),
        ("model.pkl", "pickle", "which the fleet does not allow"),
        ("model.pkl", "onnx", "which its suffix contradicts"),
        ("model.onnx.pt", "onnx", "which its suffix contradicts"),
        ("model.json", "onnx", "which its suffix contradicts"),
        ("model", "onnx", "which its suffix contradicts"),
    ],
)
def test_format_that_is_not_allowed(path, kind, reason):
    with pytest.raises(Refused, match=reason):
        policy.check_formats(release(("model.onnx", "onnx"), (path, kind)), FLEET)


def test_formats_that_are_allowed():
    policy.check_formats(HONEST, FLEET)


@pytest.mark.parametrize("signature", [None, "model.sig"])
def test_demanded_signature_that_is_missing(signature):
    demanding = ModelPolicy("m", {}, 1, signers=("-----BEGIN PUBLIC KEY-----\n",))
    signed = release(("model.onnx", "onnx"), ("model.sig", "signature"), signature=signature)
    with pytest.raises(Refused, match="has no OpenSSF model signature"):
        policy.check(signed, FLEET, demanding, {})


GOLDEN = b"""{"schema": "modelward/golden/1", "cases": [{"file": "model.onnx", "inputs": {},
    "outputs": {"y": {"dtype": "int8", "shape": [], "values": [1]}}}]}"""


def test_golden_outputs_that_are_demanded():
    demanding = ModelPolicy("m", {}, 1, health=HealthGate(required=True))
    with pytest.raises(Refused, match="which its policy demands") as refusal:
        policy.check(HONEST, FLEET, demanding, {})
    assert refusal.value.gate is Gate.POLICY
    policy.check(HONEST, FLEET, ModelPolicy("m", {}, 1), {})


def test_golden_outputs_are_of_this_release():
    files = (("model.onnx", "onnx"), ("golden.json", "json"))
    good = replace(release(*files), golden="golden.json")
    plain = ModelPolicy("m", {}, 1)
    assert policy.small_files(good, plain) == ("golden.json",)
    policy.check(good, FLEET, plain, {"golden.json": GOLDEN})
    with pytest.raises(FormatError, match="is not JSON"):
        policy.check(good, FLEET, plain, {"golden.json": b"x"})
    other = GOLDEN.replace(b"model.onnx", b"other.onnx")
    with pytest.raises(Refused, match="is about 'other"):
        policy.check(good, FLEET, plain, {"golden.json": other})


def test_golden_outputs_are_of_a_file_that_can_be_run():
    files = (("metrics.json", "json"), ("golden.json", "json"))
    made = replace(release(*files), golden="golden.json")
    golden = GOLDEN.replace(b"model.onnx", b"metrics.json")
    with pytest.raises(Refused, match="nothing can run a file of the format 'json'") as it:
        policy.check(made, FLEET, ModelPolicy("m", {}, 1), {"golden.json": golden})
    assert it.value.gate is Gate.POLICY
    assert "onnx" in it.value.advice


def test_small_files_are_those_the_gate_reads():
    demanding = ModelPolicy("m", {}, 1, (GATE, GATE), ("key",))
    signed = release(
        *(("model.onnx", "onnx"), ("metrics.json", "json"), ("model.sig", "signature")),
        signature="model.sig",
    )
    assert policy.small_files(signed, demanding) == ("metrics.json", "model.sig")
    assert policy.small_files(signed, ModelPolicy("m", {}, 1)) == ()
    assert policy.small_files(HONEST, demanding) == ("metrics.json",)

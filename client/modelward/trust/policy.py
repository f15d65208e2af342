"""Gate 8: does this attested release meet what the security team demands of it?"""

from collections.abc import Mapping

from modelward.errors import FormatError, Gate, Refused
from modelward.formats import metrics
from modelward.formats.golden import Golden
from modelward.formats.policy import FleetPolicy, MetricGate, ModelPolicy, format_of
from modelward.formats.release import Release
from modelward.formats.ticket import FILE as TICKET_FILE
from modelward.trust import model_signature

# Formats of files that answer: others hold weights, vocabularies or text for something that does.
RUNNABLE = frozenset(("onnx", "tflite", "gguf"))


def small_files(release: Release, policy: ModelPolicy) -> tuple[str, ...]:
    """Return the paths of the few small files this gate has to read."""
    paths = {gate.file for gate in policy.metrics}
    if policy.signers and release.signature:
        paths.add(release.signature)
    if release.golden:
        paths.add(release.golden)
    return tuple(sorted(path for path in paths if release.file(path)))


def check(
    release: Release, fleet: FleetPolicy, policy: ModelPolicy, content: Mapping[str, bytes]
) -> None:
    """Check formats, metric gates, the model signature and whether there are golden outputs.

    Args:
        release: The release, its files attested.
        fleet: Policy for the fleet.
        policy: Policy for the model.
        content: Content of the `small_files`.

    Raises:
        Refused: The release does not meet the policy.
        FormatError: A metrics file, the golden outputs or the signature is ill-formed.
    """
    check_formats(release, fleet)
    check_metrics(release, policy.metrics, content)
    if policy.signers:
        _check_signature(release, policy, content)
    _check_golden(release, policy, content)


def check_formats(release: Release, fleet: FleetPolicy) -> None:
    """Refuse files whose format is not on the fleet's allow-list (attack row 24)."""
    for file in release.files:
        if file.format not in fleet.formats:
            raise Refused(
                Gate.POLICY,
                f"{file.path!r} has the format {file.format!r}, which the fleet does not allow",
                f"convert it to one of {', '.join(fleet.formats)}, or have policy.json changed",
            )
        if format_of(file.path) != file.format:
            # A pickle renamed to a harmless format would be loaded by its suffix.
            raise Refused(
                Gate.POLICY,
                f"{file.path!r} is declared as {file.format!r}, which its suffix contradicts",
                "name the file as its format demands",
            )


def check_metrics(
    release: Release, gates: tuple[MetricGate, ...], content: Mapping[str, bytes]
) -> None:
    """Hold attested metrics against the model's gates (attack row 22)."""
    for gate in gates:
        if release.file(gate.file) is None:
            raise _metric(f"the release has no {gate.file!r}, which its policy gates on")
        values = metrics.parse(gate.file, content[gate.file])
        value = values.get(gate.name)
        if value is None:
            raise _metric(f"{gate.file} does not state {gate.name!r}")
        if gate.least is not None and not value >= gate.least:
            raise _metric(f"{gate.name} is {value:g}, at least {gate.least:g} is demanded")
        if gate.most is not None and not value <= gate.most:
            raise _metric(f"{gate.name} is {value:g}, at most {gate.most:g} is allowed")


def describe_metrics(gates: tuple[MetricGate, ...], content: Mapping[str, bytes]) -> str:
    """Return how gates that were passed were met, for people."""
    found = []
    for gate in gates:
        value = metrics.parse(gate.file, content[gate.file])[gate.name]
        if gate.least is not None:
            found.append(f"{gate.name} {value:g} >= {gate.least:g}")
        if gate.most is not None:
            found.append(f"{gate.name} {value:g} <= {gate.most:g}")
    return ", ".join(found)


def _check_signature(release: Release, policy: ModelPolicy, content: Mapping[str, bytes]) -> None:
    if release.signature is None or release.signature not in content:
        raise Refused(
            Gate.POLICY,
            "the release has no OpenSSF model signature, which its policy demands",
            "sign the bundle before it is packaged",
        )
    resources = {
        file.path: file.blob.sha256 for file in release.files if file.path != release.signature
    }
    try:
        # Whoever signs a model may do so before a release of it is opened; the ticket is attested.
        model_signature.verify(
            content[release.signature], resources, policy.signers, optional={TICKET_FILE}
        )
    except FormatError:
        raise
    except ValueError as error:
        raise Refused(
            Gate.POLICY,
            f"the OpenSSF model signature does not hold: {error}",
            "have the bundle signed again by one of the policy's signers",
        ) from error


def _check_golden(release: Release, policy: ModelPolicy, content: Mapping[str, bytes]) -> None:
    """Refuse now what gate 12 could not try later: no golden outputs, or none of this release."""
    if release.golden is None:
        if policy.health.required:
            raise Refused(
                Gate.POLICY,
                "the release has no golden.json, which its policy demands",
                "make one with `modelward-repo golden` before the bundle is packaged",
            )
        return
    for case in Golden.parse(content[release.golden]).cases:
        file = release.file(case.file)
        if file is not None and file.format not in RUNNABLE:
            raise Refused(
                Gate.POLICY,
                f"{release.golden} has a case about {case.file!r}, but nothing can run a file of "
                f"the format {file.format!r}: such a file only holds data",
                f"make it anew with `modelward-repo golden`, of a file that is one of: "
                f"{', '.join(sorted(RUNNABLE))}",
            )
        if file is None:
            raise Refused(
                Gate.POLICY,
                f"{release.golden} is about {case.file!r}, which is not in the release",
                "make it anew with `modelward-repo golden`",
            )


def _metric(reason: str) -> Refused:
    return Refused(
        Gate.POLICY, reason, "train and evaluate again, or have the model's policy changed"
    )

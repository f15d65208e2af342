"""metrics.json: what an evaluation step measured, as attested."""

from collections.abc import Mapping

from modelward.formats import strict

DOCUMENT = "metrics"
CAP = 1 << 16


def parse(document: str, data: bytes) -> Mapping[str, float]:
    """Parse a flat object of finite numbers.

    Args:
        document: The file's path in the release, for errors.
        data: Its bytes.

    Raises:
        FormatError: Not such an object: a metric that is a string, NaN, nested or given twice
            must not slip past a gate (attack row 22).
    """
    fields = strict.Fields(document, strict.load(document, data, CAP))
    return {name: fields.number(name) for name in fields.raw}

"""What is said when a patch is not used."""

from modelward.errors import Gate, Refused


def refused(what: str) -> Refused:
    """Return the error for a patch of which `what` is true (attack row 27)."""
    return Refused(
        Gate.FETCH,
        f"the patch {what}",
        "nothing is lost: the file can still be fetched whole",
    )

"""Gate 2: what time is it at least? A lower bound of "now" that nobody can take back.

A device's clock may stand still or be set back, and then what has expired looks fresh (attack row
4). Cosignatures carry the time at which witnesses made them: once a quorum says that a time has
passed, it has, whatever the device's own clock says.
"""

from datetime import datetime


def trusted(system: datetime, floor: datetime | None) -> datetime:
    """Return the time to judge expiry by.

    Args:
        system: What the device's clock says.
        floor: A time that has certainly passed, or None.
    """
    return system if floor is None else max(system, floor)


def raised(floor: datetime | None, passed: datetime | None) -> datetime | None:
    """Return the floor after a time was shown to have passed. It never falls."""
    return max((time for time in (floor, passed) if time is not None), default=None)

"""Gate 2: what time is it at least? A lower bound of "now" that nobody can take back.

A device's clock may stand still or be set back, and then what has expired looks fresh (attack row
4). Cosignatures carry the time at which witnesses made them: once a quorum says that a time has
passed, it has, whatever the device's own clock says.
"""

from datetime import datetime

from modelward.formats.floors import TimeFloor
from modelward.formats.log_policy import LogPolicy
from modelward.formats.log_state import log_digest


def holding(floor: TimeFloor | None, policy: LogPolicy | None) -> TimeFloor | None:
    """Return the floor if it still holds: not once root has named another log.

    Args:
        floor: A time that witnesses of a log said has passed, or None.
        policy: The log that root names now, or None.
    """
    if floor is not None and policy is not None and floor.log != log_digest(policy.vkey):
        return None
    return floor


def raised(floor: TimeFloor | None, passed: datetime | None, log: str) -> TimeFloor | None:
    """Return the floor after a log's witnesses said that a time has passed. It never falls."""
    if passed is None or (floor is not None and floor.at >= passed):
        return floor
    return TimeFloor(passed, log)


def trusted(system: datetime, floor: TimeFloor | None) -> datetime:
    """Return the time to judge expiry by.

    Args:
        system: What the device's clock says.
        floor: A time that has certainly passed, or None.
    """
    return system if floor is None else max(system, floor.at)

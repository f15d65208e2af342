"""The words for what a check tells: how much it matters, and a sentence for people."""

from collections.abc import Mapping
from typing import Any

from modelward.daemon.log import Level
from modelward.errors import ExitCode

Told = tuple[Level, str]
MOST = 4  # problems that one line names
_LEVELS = {int(ExitCode.DONE): Level.DEBUG, int(ExitCode.UNAVAILABLE): Level.WARNING}


def of_event(event: Mapping[str, Any]) -> Told | None:
    """Return the words for something on the way; None for what this version does not know."""
    match event:
        case {"event": "gate", "gate": label, "gate_number": number, "detail": detail}:
            return Level.INFO, f"gate {number} ({label}): {detail}"
        case {"event": "fetching", "received": int(received), "total": int(total)}:
            share = 100 * received // max(1, total)
            return Level.DEBUG, f"fetched {share} % of {total / 1e6:.1f} MB"
        case {"event": "waiting", "holder": holder}:
            return Level.INFO, f"waits for process {holder}, which is updating this device"
        case {"event": "hashing", "done": int(done), "total": int(total)}:
            return Level.DEBUG, f"hashed {100 * done // max(1, total)} % of {total / 1e6:.1f} MB"
    return _of_repair(event)


def _of_repair(event: Mapping[str, Any]) -> Told | None:
    match event:
        case {"event": "repairing", "alarms": [*alarms]}:
            return Level.ERROR, f"ALARM: {'; '.join(map(str, alarms))}; repairing it"
        case {"event": "repaired", "mended": [*mended], "fetched": fetched}:
            how = f"{len(mended)} mended" if mended else "nothing is damaged any more"
            return Level.NOTICE, f"repaired: {how}; {fetched} bytes were fetched"
        case {"event": "repair-failed", "reason": reason}:
            level = _LEVELS.get(event.get("exit_code", ExitCode.REFUSED), Level.ERROR)
            return level, f"NOT repaired, tried again later: {reason}"
    return None


def of_verified(result: Mapping[str, Any]) -> Told:
    """Return the words for what was found when everything was read again."""
    level = _LEVELS.get(result["exit_code"], Level.ERROR)
    if result["outcome"] == "intact":
        releases = f"{len(result['checked'])} releases, all blobs, floors, metadata"
        return Level.INFO, f"everything that is kept is as it was approved: {releases}"
    if result["outcome"] != "damaged":
        return level, f"what is kept could not be verified, tried again later: {result['reason']}"
    found = "; ".join(
        f"{item['model']} {item['version']}: {item['path']}: {item['problem']}"
        if item["model"]
        else f"{item['path']}: {item['problem']}"
        for item in result["problems"][:MOST]
    )
    more = len(result["problems"]) - MOST
    found += f"; and {more} more" if more > 0 else ""
    if result["exit_code"] == ExitCode.DONE:
        return Level.NOTICE, f"was damaged, and is mended: {found}"
    return Level.ERROR, f"DAMAGED: {found}; what to do: run `modelward verify --repair`"


def of_result(result: Mapping[str, Any], *, only_check: bool) -> Told:
    """Return the words for how a check ended.

    Args:
        result: As `modelward update --json` has it.
        only_check: Whether nothing was to change.
    """
    if result.get("changes"):
        verb = "waits for a maintenance window:" if only_check else "is now"
        changes = (
            f"{change['model']} {verb} {change['after']} (was {change['before'] or 'nothing'})"
            for change in result["changes"]
        )
        return Level.NOTICE, "; ".join(changes)
    level = _LEVELS.get(result["exit_code"], Level.ERROR)
    if "opens_in" in result:
        level = Level.INFO  # as it was set
    if not result.get("reason"):
        return level, f"{result['outcome']}: nothing to do"
    where = f" at gate {result['gate_number']} ({result['gate']})" if result.get("gate") else ""
    advice = f"; what to do: {result['advice']}" if result.get("advice") else ""
    return level, f"{result['outcome']}{where}: {result['reason']}{advice}"

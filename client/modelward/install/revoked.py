"""What is revoked is not fallen back to: what a generation keeps, and what a trial goes back to.

Never to nothing: a revoked release runs on, and again after a failed trial, if nothing else is
here (docs/adr/0015).
"""

from collections.abc import Collection, Mapping

from modelward.formats.installed import Installed, Slot
from modelward.install.slots import Slots


def forsaken(installed: Installed, good: Installed) -> set[str]:
    """Return the digests of what a trial would go back to, but what runs does not fall back to.

    Only of a revoked release is that so. Who joins the trial later must not make it be kept.
    """
    return {
        good.active[model].sha256
        for model in installed.changed_since(good)
        if model in good.active and model not in installed.previous
    }


def to_go_back_to(
    slots: Slots, good: Installed, on_trial: Mapping[str, Slot], revoked: Collection[str]
) -> Installed:
    """Return a generation with what is kept in the place of what is revoked, as far as it goes.

    Args:
        slots: The installed releases.
        good: The generation that a trial would go back to.
        on_trial: What is on trial: other models stay as they are.
        revoked: Digests of releases that are revoked.
    """
    kept = good.without(revoked)
    before = {
        model: kept.previous[model]
        for model in on_trial
        if model in kept.previous and kept.active[model].sha256 in revoked
    }
    better = kept.going_back(before)
    return better if slots.agree(better) else kept

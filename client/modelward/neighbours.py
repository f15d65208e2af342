"""Other devices nearby: whom to ask for blobs, and what they have seen of the log.

They are sources like any other, near and trusted with nothing. What makes them worth meeting even
where they have no byte to give: both compare checkpoints, and neither can be shown less than the
other without noticing.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor

from modelward import log_memory
from modelward.device import Device
from modelward.errors import ModelwardError, Unavailable
from modelward.formats import note
from modelward.install import neighbours as found
from modelward.transfer.http import Http
from modelward.transfer.post import post
from modelward.transfer.sources import HttpSource, Kind

GOSSIP = "/gossip"
SECONDS = 2.0  # for one neighbour; all are asked at once
MOST_AT_ONCE = 16


def urls(device: Device) -> tuple[str, ...]:
    """Return the addresses of neighbours: those configured, then those found."""
    settings = device.config.neighbours
    discovered = found.read(device.config.state) if settings.discover else ()
    return tuple(dict.fromkeys((*settings.urls, *discovered)))


def sources(device: Device, http: Http) -> list[HttpSource]:
    """Return the neighbours as sources."""
    return [HttpSource(url, http, Kind.NEIGHBOUR) for url in urls(device)]


def gossip(device: Device) -> None:
    """Exchange checkpoints of the log with every neighbour that answers. Never raises.

    Evidence is kept, and larger trees are remembered (`log_memory.gossip`), before the repository
    is asked for anything: so that it is judged by what others have seen.
    """
    near = urls(device)
    if not near or device.log.is_empty():
        return
    state = device.log.load()
    own = state.signed.to_bytes() if state else b""

    def ask(url: str) -> bytes:
        with contextlib.suppress(Unavailable):
            answer = post(url + GOSSIP, own, seconds=SECONDS)
            return answer.body if answer.status == 200 else b""  # noqa: PLR2004 - OK
        return b""

    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        answers = list(pool.map(ask, near))
    for shown in answers:
        if shown and len(shown) <= note.CAP:
            with contextlib.suppress(ModelwardError, OSError):
                log_memory.gossip(device, shown)

"""Other devices nearby: whom to ask for blobs, and what they have seen of the log.

They are sources like any other, near and trusted with nothing. What makes them worth meeting even
where they have no byte to give: both compare checkpoints, and neither can be shown less than the
other without noticing.
"""

import contextlib
import hashlib
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from modelward import log_memory
from modelward.device import Device
from modelward.errors import ModelwardError, Refused, Unavailable
from modelward.formats import note
from modelward.formats.chunks import ChunkIndex
from modelward.formats.release import Blob
from modelward.install import device_key
from modelward.install import neighbours as found
from modelward.transfer import swarm
from modelward.transfer.http import Http
from modelward.transfer.neighbour import Neighbour
from modelward.transfer.post import post
from modelward.transfer.sources import Sources
from modelward.transfer.swarm import Neighbourhood

GOSSIP = "/gossip"
SECONDS = 2.0  # for one neighbour; all are asked at once
MOST_AT_ONCE = 16
ALWAYS = 8  # of those found; the rest is drawn anew each time
# Times the bytes of the cheapest way to a blob: to gather it for others, too, is dear. With three
# neighbours or fewer it never is: a way that is so cheap is not shared then (docs/adr/0014).
DEAR = 4


def urls(device: Device) -> tuple[str, ...]:
    """Return the addresses of neighbours: those configured, then those found.

    Anybody on the network can announce as many as they like, and each costs time to ask. Those
    found first are not displaced by them; and who comes after them is not shut out for good.
    """
    settings = device.config.neighbours
    discovered = found.read(device.config.state) if settings.discover else ()
    first, others = discovered[:ALWAYS], discovered[ALWAYS:]
    drawn = random.sample(others, min(len(others), MOST_AT_ONCE - ALWAYS))
    return tuple(dict.fromkeys((*settings.urls, *first, *drawn)))


def sources(device: Device, http: Http) -> list[Neighbour]:
    """Return the neighbours as sources.

    Args:
        device: The device.
        http: A client with the patience of `modelward.transfer.neighbour`.
    """
    return [Neighbour(url, http) for url in urls(device)]


def neighbour_id(device: Device) -> str:
    """Return by what this device is known where devices share the work of fetching.

    It follows from the public half of the device's key, so that every process of this device has
    the same, and says nothing else.
    """
    public = device_key.public_of(device.config.state)
    if public is None:
        public = device_key.load_or_make(device.config.state).public.public
    return hashlib.sha256(f"modelward/neighbour/1 {public}".encode()).hexdigest()[:16]


def gossip(device: Device) -> None:
    """Exchange checkpoints of the log with every neighbour that answers. Never raises.

    Evidence is kept, and larger trees are remembered (`log_memory.gossip`), before the repository
    is asked for anything: so that it is judged by what others have seen.
    """
    near = urls(device)
    try:
        if not near or device.log.is_empty():
            return
        state = device.log.load()
    except (ModelwardError, OSError):
        return  # there is nothing to compare with; gate 4 will say what is wrong
    own = state.signed.to_bytes() if state else b""

    def ask(url: str) -> bytes:
        with contextlib.suppress(ModelwardError):
            answer = post(url + GOSSIP, own, seconds=SECONDS)
            return answer.body if answer.status == 200 else b""  # noqa: PLR2004 - OK
        return b""

    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        answers = list(pool.map(ask, near))
    for shown in answers:
        if shown and len(shown) <= note.CAP:
            with contextlib.suppress(ModelwardError, OSError):
                log_memory.gossip(device, shown)


def gather(  # noqa: PLR0913 - the last two are named
    device: Device,
    sources: Sources,
    blob: Blob,
    index: Blob | None,
    *,
    cost: int,
    progress: Callable[[int], None],
) -> bool:
    """Bring a blob together with neighbours that want it too, if that spares the uplink.

    Args:
        device: The device.
        sources: Where from.
        blob: What.
        index: Its chunk index, or None: then neighbours cannot be held to what they deliver.
        cost: Bytes that the cheapest way to it takes without neighbours.
        progress: Told of bytes as they are there, and of none now and then; may raise to stop.

    Returns:
        Whether all of it is there. It is not verified as a whole: whoever fetches it does so.
    """
    peers = {each.name: each for each in sources.sources if isinstance(each, Neighbour)}
    if not peers or index is None or cost <= blob.length // (len(peers) + 1):
        return False

    def go_on() -> None:
        progress(0)  # the deadline passes although nothing arrives

    try:
        known = device.store.read(index)
        data = known or sources.fetch_blob(index, go_on)
        chunks = ChunkIndex.parse(data)
    except (Refused, Unavailable):
        go_on()  # it may not be the index that is amiss
        return False  # an index saves bytes; nothing depends on it
    if known is None:
        device.store.add(index, [memoryview(data)])  # of use the next time, too
        progress(len(data))
    near = Neighbourhood(neighbour_id(device), peers)
    return swarm.gather(
        sources,
        near,
        blob,
        device.store,
        chunks,
        is_dear=cost <= blob.length // DEAR,
        progress=progress,
        go_on=go_on,
    )

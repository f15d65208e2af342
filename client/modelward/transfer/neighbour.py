"""A neighbour as a source: of whole blobs like any other, and of parts of what it is fetching."""

from modelward.formats.have import CAP, Have
from modelward.formats.release import Blob
from modelward.transfer.http import Http
from modelward.transfer.pace import Patience
from modelward.transfer.sources import HttpSource, Kind, Reader

# Near, or not worth asking. A piece of 1 MiB takes a neighbour 16 seconds at most.
PATIENCE = Patience(connect=2.0, first=4.0, rate=64 << 10, window=5.0, total=8.0, tries=1)


class Neighbour(HttpSource):
    """Another device.

    Args:
        url: Where it serves, without a final slash.
        http: A client with `PATIENCE`; whoever made it closes it.
    """

    def __init__(self, url: str, http: Http) -> None:
        super().__init__(url, http, Kind.NEIGHBOUR)
        self._near = http

    def have(self, blob: Blob) -> Have:
        """Return what it says that it has of a blob.

        Raises:
            FormatError: The answer is ill-formed.
            Unavailable: There is none.
        """
        return Have.parse(self._near.fetch(f"{self.name}/have/{blob.sha256}", CAP), blob.length)

    def open_part(self, blob: Blob, start: int, stop: int) -> Reader:
        """Return a reader of a part of a blob that it may still be fetching.

        Raises:
            Refused: It is provably wrong, for example about the blob's length.
            NotFound: It does not have that part.
            Unavailable: Anything else went wrong.
        """
        return self._near.open(f"{self.name}/parts/{blob.sha256}", start, stop, blob.length)

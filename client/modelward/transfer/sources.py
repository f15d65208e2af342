"""Where blobs come from. Any of them may lie; every byte is checked."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """The repository itself.

    Attributes:
        url: Its address, without a final slash.
    """

    url: str

    @property
    def metadata_url(self) -> str:
        """Where TUF metadata is."""
        return f"{self.url}/metadata/"

    @property
    def targets_url(self) -> str:
        """Where TUF targets are."""
        return f"{self.url}/targets/"

    @property
    def log_url(self) -> str:
        """Where the transparency log is."""
        return f"{self.url}/log/"

    def blob_url(self, sha256: str) -> str:
        """Return where a blob is."""
        return f"{self.url}/blobs/sha256/{sha256[:2]}/{sha256}"

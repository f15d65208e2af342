"""[health] in modelward.toml: how a new model is tried before it may run (gate 12)."""

from dataclasses import dataclass

from modelward.config.table import Table

LEAST_MEMORY = 64 << 20  # bytes: an interpreter alone takes a part of this


@dataclass(frozen=True)
class HealthSettings:
    """How to try a new model.

    Attributes:
        command: The operator's own check, run once the new model is switched to; empty for none.
            It comes from this file only, never from the network.
        timeout: Seconds that loading and running the model, and the command, may each take.
        memory: Bytes of memory that the process which tries a model may take.
        soak: Seconds that a new model stays on trial before the update is committed.
        isolated: Whether to install nothing where the process that tries a model cannot be cut off
            from the network.
        user: Whom that process becomes where the updater is root.
    """

    command: tuple[str, ...] = ()
    timeout: float = 60.0
    memory: int = 2 << 30
    soak: float = 0.0
    isolated: bool = False
    user: str = "nobody"

    NAME = "health"
    KNOWN = frozenset(("command", "timeout", "memory", "soak", "isolated", "user"))

    @classmethod
    def parse(cls, raw: object) -> "HealthSettings":
        """Read the table.

        Raises:
            UsageError: A setting makes no sense.
        """
        table = Table(cls.NAME, raw, cls.KNOWN)
        settings = cls(
            command=table.texts("command"),
            timeout=table.seconds("timeout", cls.timeout),
            memory=table.size("memory", cls.memory),
            soak=table.seconds("soak", cls.soak),
            isolated=table.flag("isolated", default=cls.isolated),
            user=table.text("user", cls.user),
        )
        if settings.timeout < 1:
            raise table.wrong("timeout", "must be at least one second")
        if settings.memory < LEAST_MEMORY:
            raise table.wrong("memory", "must be at least 64 MiB")
        return settings

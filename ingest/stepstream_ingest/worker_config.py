"""What a worker process is told by its supervisor."""

import json
from dataclasses import asdict, dataclass, field

from stepstream_ingest.artifacts.stores.root import ArtifactRoot


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """One worker. It is not told by arguments: they are public to the machine, and this holds tokens and the DSN."""

    dsn: str
    artifact_root: ArtifactRoot
    artifact_secret: str
    """Hexadecimal; every server of this database signs with it."""
    token: str | None = None
    old_tokens: list[str] = field(default_factory=list)
    """Taken as well as `token`."""
    allowed_hosts: list[str] | None = None
    """Names by which the server may be asked, beside addresses and localhost; None takes any."""
    heartbeat_timeout_s: float = 60.0
    drain_s: float = 10.0
    queue_bytes: int = 64 * 2**20
    """Admitted and not committed: with decoding and copying it keeps a worker below 300 MB."""
    queue_requests: int = 512
    connections: int = 9
    """To PostgreSQL, at most."""
    compaction: bool = True
    """Take part in compaction; off only where something else is measured."""
    worker: int = 0
    """Which of the workers it is."""
    tally: str = ""
    """The file in which the workers count their connections."""

    def to_json(self) -> str:
        """One line, for the standard input of the workers' parent."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "WorkerConfig":
        """The value behind `to_json`."""
        said = json.loads(text)
        return cls(**said | {"artifact_root": ArtifactRoot(**said["artifact_root"])})

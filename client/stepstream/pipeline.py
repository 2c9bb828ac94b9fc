"""Everything behind a run's buffer: framer, spool, sealer and sender, opened off the calling thread."""

from dataclasses import dataclass

from stepstream import process
from stepstream.buffer import Buffer
from stepstream.framer import Framer
from stepstream.notices import Notices
from stepstream.outbox import Outbox
from stepstream.sealer import HEARTBEAT_S, Sealer
from stepstream.settings import Settings
from stepstream.spool.reader import SpoolReader
from stepstream.spool.writer import SpoolWriter
from stepstream_schema.attempt import Attempt
from stepstream_schema.records import Start


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterIdentity:
    """Who writes: fixed for the life of one writer."""

    run_id: str
    writer: int
    rank: int | None
    attempt: Attempt
    experiment: str
    run_name: str
    user: str
    start_time_ms: int


class Pipeline:
    """One writer's way from buffer to spool; the sender joins once it is loaded."""

    def __init__(self, *, identity: WriterIdentity, settings: Settings, buffer: Buffer, notices: Notices) -> None:
        spool = SpoolWriter(
            settings.spool_dir,
            run_id=identity.run_id,
            writer=identity.writer,
            owner=process.current(),
            tracking_uri=settings.tracking_uri,
            experiment=identity.experiment,
            created_ms=identity.start_time_ms,
            max_bytes=settings.spool_max_bytes,
            min_free_bytes=settings.spool_min_free_bytes,
        )
        start = Start(
            experiment=identity.experiment[:500],
            name=identity.run_name[:500],
            time_ms=identity.start_time_ms,
            user=identity.user,
            heartbeat_s=int(HEARTBEAT_S),
        )
        self.outbox = Outbox(spool, SpoolReader(settings.spool_dir, identity.run_id, identity.writer), notices)
        self.sealer = Sealer(
            buffer=buffer,
            framer=Framer(
                run_id=identity.run_id,
                writer=identity.writer,
                rank=identity.rank,
                attempt=identity.attempt,
                start=start,
            ),
            outbox=self.outbox,
            interval_s=settings.spool_interval_s,
            notices=notices,
        )

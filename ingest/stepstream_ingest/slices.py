"""The slices of one worker, as whoever translates a protocol to them is handed them."""

from dataclasses import dataclass

from stepstream_ingest.artifacts.manifest import Manifest
from stepstream_ingest.logs import Logs
from stepstream_ingest.origin import Origins
from stepstream_ingest.read.history import History
from stepstream_ingest.registry.store import Registry
from stepstream_ingest.retention.store import Retention
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_ingest.tracking.models import LoggedModels
from stepstream_ingest.tracking.runs import Runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """What a protocol is translated to."""

    experiments: Experiments
    runs: Runs
    models: LoggedModels
    registry: Registry
    origins: Origins
    history: History
    logs: Logs
    retention: Retention
    manifest: Manifest

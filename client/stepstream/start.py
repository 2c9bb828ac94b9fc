"""Begin a run: settings, and who this process is in its job."""

import itertools
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stepstream import active, by_id, identity, place, process, run_info, settings
from stepstream.query import Server
from stepstream.run import Run
from stepstream_schema.attempt import Attempt

LOGGER: Final = logging.getLogger("stepstream")
PARENT_TAG: Final = "mlflow.parentRunId"
DESCRIPTION_TAG: Final = "mlflow.note.content"
RUN_ID: Final = re.compile("[0-9a-f]{32}")

_ordinals = itertools.count()


def start_run(
    experiment: str | None = None,
    run_name: str | None = None,
    *,
    run_id: str | None = None,
    experiment_id: str | None = None,
    nested: bool = False,
    parent_run_id: str | None = None,
    description: str | None = None,
    rank: int | None = None,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
    log_system_metrics: bool | None = None,
    tracking_uri: str | None = None,
    token: str | None = None,
    spool_dir: str | Path | None = None,
    spool_interval: float | str | None = None,
    buffer_bytes: int | None = None,
    finish_timeout: float | None = None,
) -> Run:
    """Start a run, or join it: every rank of a job that calls this logs into one run.

    Nothing has to be reachable, unless the experiment is named by `experiment_id`. Where `experiment` is 32 hex digits
    it is a run's id, as MLflow's first argument is.
    With `nested`, the run is a child of the one that is open in this thread. Raises ConfigurationError for settings
    that cannot be meant, RunIdentityError when several nodes have nothing that tells them which run is theirs,
    QueryError for an experiment's id that is none.
    """
    if experiment is not None and run_id is None and RUN_ID.fullmatch(experiment):
        experiment, run_id = None, experiment
    loaded = settings.load(
        os.environ,
        experiment=experiment or _experiment(experiment_id, tracking_uri, token) or place.experiment(),
        tracking_uri=tracking_uri or place.tracking_uri(),
        token=token,
        spool_dir=spool_dir,
        spool_interval=spool_interval,
        buffer_bytes=buffer_bytes,
        finish_timeout=finish_timeout,
    )
    again = identity.is_started_again(os.environ)
    is_first = again and os.environ["LOCAL_RANK"] == "0"
    launcher = process.launcher(identity.launched(os.environ), may_be_this=is_first)
    job = identity.detect(os.environ, launcher=launcher, run_id=run_id, ordinal=next(_ordinals))
    parent = active.current() if nested else None
    run = Run(
        run_id=job.run_id or os.urandom(16).hex(),
        run_name=run_name,
        rank=job.rank if rank is None else identity.given_rank(rank),
        attempt=job.attempt,
        settings=loaded,
        # One of each node: the ranks share a directory, maybe on a file server, and each would look into all of it.
        adopts=job.local_rank in (None, 0),
    )
    if job.world_size <= 1 and not again:
        os.environ.update(identity.begun(os.environ, process.current(), run.run_id))
    active.opened(run)
    is_named = identity.given(os.environ, run_id) is not None
    if is_named:
        run_info.named_by_id(run)
    if is_named or job.attempt > Attempt():
        # It may have ended before, in another life or by the attempt that was restarted: it goes on.
        run.resume(time.time_ns() // 1_000_000)
    if log_system_metrics:
        LOGGER.warning("stepstream: log_system_metrics: system metrics are not collected; everything else is logged")
    run.log_params(params or {})
    run.set_tags(tags or {})
    parent_id = parent_run_id or (parent.run_id if parent is not None and parent.run_id != run.run_id else None)
    run.set_tags({PARENT_TAG: parent_id} if parent_id else {})
    run.set_tags({DESCRIPTION_TAG: description} if description else {})
    return run


def download_artifacts(
    run_id: str,
    artifact_path: str = "",
    dst_path: str | Path = ".",
    *,
    tracking_uri: str | None = None,
    token: str | None = None,
) -> Path:
    """Fetch a file of a run, or everything below a directory, into `dst_path`; where it lies then.

    Ranges are fetched side by side, an interrupted download goes on where it was, and the SHA-256 is checked before a
    file gets its name. Raises ArtifactError, and ConfigurationError for settings that cannot be meant.
    """
    from stepstream.artifacts.download import download

    loaded = settings.load(os.environ, tracking_uri=tracking_uri or place.tracking_uri(), token=token)
    return download(loaded, run_id, artifact_path, Path(dst_path))


def _experiment(experiment_id: str | None, tracking_uri: str | None, token: str | None) -> str | None:
    if experiment_id is None and not by_id.is_said():
        return None
    loaded = settings.load(os.environ, tracking_uri=tracking_uri or place.tracking_uri(), token=token)
    return by_id.of_start(loaded) if experiment_id is None else by_id.active(experiment_id, Server(loaded)).name

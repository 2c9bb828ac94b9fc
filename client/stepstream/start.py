"""Begin a run: settings, and who this process is in its job."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from stepstream import identity, process, settings
from stepstream.run import Run

_ordinals = itertools.count()


def start_run(
    experiment: str | None = None,
    run_name: str | None = None,
    *,
    run_id: str | None = None,
    rank: int | None = None,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
    tracking_uri: str | None = None,
    token: str | None = None,
    spool_dir: str | Path | None = None,
    spool_interval: float | str | None = None,
    buffer_bytes: int | None = None,
    finish_timeout: float | None = None,
) -> Run:
    """Start a run, or join it: every rank of a job that calls this logs into one run.

    Nothing has to be reachable. Raises ConfigurationError for settings that cannot be meant, and RunIdentityError
    when several nodes have nothing that tells them which run is theirs.
    """
    loaded = settings.load(
        os.environ,
        experiment=experiment,
        tracking_uri=tracking_uri,
        token=token,
        spool_dir=spool_dir,
        spool_interval=spool_interval,
        buffer_bytes=buffer_bytes,
        finish_timeout=finish_timeout,
    )
    job = identity.detect(os.environ, parent=process.parent(), run_id=run_id, ordinal=next(_ordinals))
    run = Run(
        run_id=job.run_id or os.urandom(16).hex(),
        run_name=run_name,
        rank=job.rank if rank is None else rank,
        attempt=job.attempt,
        settings=loaded,
    )
    run.log_params(params or {})
    run.set_tags(tags or {})
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

    loaded = settings.load(os.environ, tracking_uri=tracking_uri, token=token)
    return download(loaded, run_id, artifact_path, Path(dst_path))

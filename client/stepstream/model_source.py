"""What `runs:/<run id>/<path>` means to the registry: files of the run, or a logged model that the run has made."""

from dataclasses import dataclass
from typing import Final

from stepstream import active
from stepstream.entities import Run
from stepstream.errors import QueryError
from stepstream.tracking.client import MlflowClient

NEWEST: Final = 5000
"""Logged models of a run that are looked through, the newest first: as many as a page may have."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where the files of a new version are."""

    uri: str
    model_id: str | None
    """Of the logged model that they are, if they are one."""


def of_run(client: MlflowClient, run_id: str, path: str) -> ModelSource:
    """What lies at a path of a run; else the logged model of that name, of several the one of the highest step.

    Files that this process has logged to the run and that are on their way are waited for. Raises QueryError
    (RESOURCE_DOES_NOT_EXIST) where there is neither.
    """
    run = client.get_run(run_id)
    found = _files(client, run, path) or _logged_model(client, run, path)
    if found is None and (handle := active.by_id(run_id)) is not None:
        handle.flush_artifacts()
        found = _files(client, run, path)
    if found is None:
        raise QueryError(
            f"the run {run_id} has neither files nor a logged model at {path!r}: log them first, or see what is there "
            f"by `stepstream artifacts ls {run_id}`",
            error_code="RESOURCE_DOES_NOT_EXIST",
        )
    return found


def _files(client: MlflowClient, run: Run, path: str) -> ModelSource | None:
    above, _, _ = path.rpartition("/")
    there = client.list_artifacts(run.info.run_id, above)
    lies = any(one.path == path for one in there) if path else bool(there)
    return ModelSource(f"{run.info.artifact_uri}/{path}", None) if lies else None


def _logged_model(client: MlflowClient, run: Run, path: str) -> ModelSource | None:
    steps = {made.model_id: made.step for made in run.outputs.model_outputs}
    made_by_run = f"source_run_id = '{run.info.run_id}'"
    page = client.search_logged_models([run.info.experiment_id], made_by_run, max_results=NEWEST)
    found = {one.model_id: steps.get(one.model_id, 0) for one in page if one.name == path}
    # Of one step the newest, which comes first.
    newest = max(found, key=lambda model_id: found[model_id], default=None)
    return ModelSource(f"models:/{newest}", newest) if newest is not None else None

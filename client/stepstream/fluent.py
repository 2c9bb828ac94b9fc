"""MLflow's module-level functions: `import stepstream as mlflow` runs its classical scripts.

What logs goes to the open run of this thread, which is started where there is none; it never blocks and never raises.
What asks or changes anything else waits for the server, and raises QueryError. A question sees what was logged before.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

from stepstream import active, by_id, model_source, place
from stepstream.entities import Experiment, Metric, ModelVersion, Param, RegisteredModel, Run, ViewType
from stepstream.errors import ConfigurationError
from stepstream.implicit import known, open_run, run_of, wait
from stepstream.listed import listed
from stepstream.model_source import ModelSource
from stepstream.run import Run as OpenRun
from stepstream.tracking.client import MlflowClient
from stepstream_schema import paths

if TYPE_CHECKING:
    import pandas

LOGGER: Final = logging.getLogger("stepstream")
PAGE: Final = 1000
ALL: Final = 100_000
"""Runs of a search that names no number, as MLflow has it."""
OF_RUN: Final = "runs:/"
ASKED: Final = {field.name for field in fields(Experiment)} - {"name"} | {"to_dictionary"}
"""What the server says of an experiment of which the name is known."""


class NamedExperiment:
    """An experiment of which the name is known; the server is asked for the rest when it is read, and may be away."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        # Notebooks, copy and pickle look for all sorts of names: a question for each would wait for minutes, and make
        # the experiment.
        if attribute not in ASKED:
            raise AttributeError(f"an experiment has no {attribute!r}", name=attribute, obj=self)
        return getattr(self._known, attribute)

    def __repr__(self) -> str:
        return f"<NamedExperiment {self.name!r}>"

    @cached_property
    def _known(self) -> Experiment:
        client = MlflowClient()
        client._ask("POST", paths.EXPERIMENTS, {"name": self.name})
        found = client.get_experiment_by_name(self.name)
        assert found is not None
        return found


def set_experiment(experiment_name: str | None = None, experiment_id: str | None = None) -> Experiment:
    """Runs that start from now on belong to it; made with its first run. By its name, nothing has to be reachable.

    Raises ConfigurationError for neither or both and for no name; by an id, QueryError where there is no active one.
    """
    if (experiment_name is None) == (experiment_id is None):
        raise ConfigurationError("say one of experiment_name and experiment_id")
    if experiment_id is not None:
        found = by_id.active(experiment_id, MlflowClient()._server)
        place.say_experiment(found.name)
        return found
    if not isinstance(experiment_name, str) or not experiment_name:
        raise ConfigurationError(f"an experiment's name is a text that is not empty, and not {experiment_name!r}")
    place.say_experiment(experiment_name)
    # Reads as an Experiment does.
    return NamedExperiment(experiment_name)  # type: ignore[return-value]


def active_run() -> OpenRun | None:
    """The run that this thread logs to, if one is open."""
    return active.current()


def last_active_run() -> OpenRun | None:
    """The run that was opened last in this process, ended or not."""
    return active.last()


def end_run(status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
    """End the run that this thread logs to, if one is open; waits for the server, as `run.finish` does."""
    run = active.current()
    if run is not None:
        run.finish(status)


def log_metric(
    key: str,
    value: Any,
    step: int | None = None,
    synchronous: bool | None = None,
    timestamp: int | None = None,
    run_id: str | None = None,
    model_id: str | None = None,
    dataset: Any = None,
) -> None:
    """Log one value, at step 0 where none is said; `timestamp` is in ms since the epoch.

    With `model_id`, of that logged model, too, measured on `dataset`: by a request, which is waited for.
    """
    run = None if model_id is not None else run_of(run_id)
    if run is None:
        log_metrics({key: value}, step, synchronous, run_id, timestamp, model_id, dataset)
        return
    run.log_metric(key, value, 0 if step is None else step, timestamp)
    wait(run, synchronous)


def log_metrics(
    metrics: Mapping[str, Any],
    step: int | None = None,
    synchronous: bool | None = None,
    run_id: str | None = None,
    timestamp: int | None = None,
    model_id: str | None = None,
    dataset: Any = None,
) -> None:
    """Log values that belong together. A run that is not open here is asked for by `run_id`, and waited for.

    With `model_id`, of that logged model, too, measured on `dataset`: by requests, which are waited for.
    """
    run = None if model_id is not None else run_of(run_id)
    if run is None:
        on = (None, None) if dataset is None else (dataset.name, dataset.digest)
        when = time.time_ns() // 1_000_000 if timestamp is None else timestamp
        said = [Metric(key, value, when, step or 0, model_id, *on) for key, value in metrics.items()]
        MlflowClient().log_batch(known(run_id), said)
        return
    # MLflow's functions mean step 0; a handle's own log() counts its calls.
    run.log_metrics(metrics, 0 if step is None else step, timestamp)
    wait(run, synchronous)


def log_param(key: str, value: Any, synchronous: bool | None = None) -> Any:
    """Log a parameter; the first value stays."""
    run = open_run()
    run.log_param(key, value)
    wait(run, synchronous)
    return value


def log_params(params: Mapping[str, Any], synchronous: bool | None = None, run_id: str | None = None) -> None:
    """Log parameters; the first values stay."""
    run = run_of(run_id)
    if run is None:
        MlflowClient().log_batch(str(run_id), params=[Param(key, str(value)) for key, value in params.items()])
        return
    run.log_params(params)
    wait(run, synchronous)


def set_tag(key: str, value: Any, synchronous: bool | None = None) -> None:
    """Set a tag; the last value stays."""
    run = open_run()
    run.set_tag(key, value)
    wait(run, synchronous)


def set_tags(tags: Mapping[str, Any], synchronous: bool | None = None) -> None:
    """Set tags; the last values stay."""
    run = open_run()
    run.set_tags(tags)
    wait(run, synchronous)


def delete_tag(key: str) -> None:
    """Remove a tag."""
    open_run().delete_tag(key)


def log_input(
    dataset: Any, context: str | None = None, tags: Mapping[str, str] | None = None, model: Any = None
) -> None:
    """Say that the run reads a dataset, of `stepstream.data` or MLflow's, and a logged model, which is waited for."""
    open_run().log_input(dataset, context, tags)
    if model is not None:
        MlflowClient().log_inputs(known(None), models=[model])


def log_inputs(
    datasets: Sequence[Any] | None = None,
    contexts: Sequence[str | None] | None = None,
    tags_list: Sequence[Mapping[str, str] | None] | None = None,
    models: Sequence[Any] | None = None,
) -> None:
    """Say that the run reads datasets, and logged models (each with `model_id`): those are waited for."""
    contexts = contexts or [None] * len(datasets or ())
    each = tags_list or [None] * len(datasets or ())
    for dataset, context, tags in zip(datasets or (), contexts, each, strict=True):
        log_input(dataset, context, tags)
    if models:
        MlflowClient().log_inputs(known(None), models=models)


def flush_async_logging() -> None:
    """Wait, for ten seconds at most, until what open runs have logged is durable."""
    active.flush()


def flush_artifact_async_logging() -> None:
    """Wait until the files that open runs have logged are stored, as long as they move."""
    active.flush_artifacts()


def get_run(run_id: str) -> Run:
    """One run, be it deleted."""
    return MlflowClient().get_run(run_id)


def get_parent_run(run_id: str) -> Run | None:
    """The run that it is nested in, or None."""
    return MlflowClient().get_parent_run(run_id)


def delete_run(run_id: str) -> None:
    """Deleted, until it is restored or the garbage is collected."""
    MlflowClient().delete_run(run_id)


def restore_run(run_id: str) -> None:
    """Restored."""
    MlflowClient().restore_run(run_id)


def create_experiment(name: str, artifact_location: str | None = None, tags: Mapping[str, Any] | None = None) -> str:
    """A new experiment; its id."""
    return MlflowClient().create_experiment(name, artifact_location, tags)


def get_experiment(experiment_id: str) -> Experiment:
    """One experiment, be it deleted."""
    return MlflowClient().get_experiment(experiment_id)


def get_experiment_by_name(name: str) -> Experiment | None:
    """The experiment of a name, or None."""
    return MlflowClient().get_experiment_by_name(name)


def delete_experiment(experiment_id: str) -> None:
    """Deleted with its runs, until it is restored."""
    MlflowClient().delete_experiment(experiment_id)


def restore_experiment(experiment_id: str) -> None:
    """Restored with its runs."""
    MlflowClient().restore_experiment(experiment_id)


def set_experiment_tag(key: str, value: Any) -> None:
    """A tag of the experiment that runs belong to; waits for the server."""
    MlflowClient().set_experiment_tag(experiment_id(), key, value)


def delete_experiment_tag(key: str) -> None:
    """A tag of the experiment that runs belong to goes; waits for the server."""
    MlflowClient().delete_experiment_tag(experiment_id(), key)


def set_experiment_tags(tags: Mapping[str, Any]) -> None:
    """Tags of the experiment that runs belong to; waits for the server."""
    for key, value in tags.items():
        set_experiment_tag(key, value)


def search_experiments(
    view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int | None = None,
    filter_string: str | None = None,
    order_by: Sequence[str] | str | None = None,
) -> list[Experiment]:
    """Every experiment that fits a filter, or so many of them."""
    client = MlflowClient()
    return every(
        lambda count, token: client.search_experiments(view_type, count, filter_string, order_by, token), max_results
    )


def search_runs(
    experiment_ids: Sequence[str] | str | int | None = None,
    filter_string: str = "",
    run_view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int = ALL,
    order_by: Sequence[str] | str | None = None,
    output_format: Literal["pandas", "list"] = "pandas",
    search_all_experiments: bool = False,
    experiment_names: Sequence[str] | str | None = None,
) -> "pandas.DataFrame | list[Run]":
    """Runs that fit a filter, as a table (a column for each metrics.*, params.* and tags.*) or a list.

    Without ids and names, of the experiment that runs belong to, or of all. Raises ConfigurationError for both ids and
    names, and where pandas is missing.
    """
    ids, names = listed(experiment_ids), listed(experiment_names)
    if ids and names:
        raise ConfigurationError("say experiment_ids or experiment_names, not both")
    client = MlflowClient()
    if names:
        ids = _ids(client, names)
    elif not ids:
        ids = [one.experiment_id for one in search_experiments()] if search_all_experiments else [experiment_id()]

    def page(count: int, token: str | None) -> Any:
        return client.search_runs(ids, filter_string, run_view_type, count, listed(order_by), token)

    found = every(page, max_results) if ids else []
    if output_format == "list":
        return found
    from stepstream.table import of_runs

    return of_runs(found)


def register_model(
    model_uri: str,
    name: str,
    await_registration_for: int | None = None,
    *,
    tags: Mapping[str, Any] | None = None,
) -> ModelVersion:
    """The next version of a registered model, made if there is none, from runs:/<run id>/<path> or models:/…

    What a run has no files for is its logged model of that name. Raises QueryError where there is neither.
    """
    client = MlflowClient()
    run_id, source = None, ModelSource(model_uri, None)
    if model_uri.startswith(OF_RUN):
        run_id, _, path = model_uri.removeprefix(OF_RUN).lstrip("/").partition("/")
        source = model_source.of_run(client, run_id, path.strip("/"))
    client._require_registered_model(name)
    return client.create_model_version(name, source.uri, run_id, tags, model_id=source.model_id)


def search_registered_models(
    max_results: int | None = None, filter_string: str | None = None, order_by: Sequence[str] | str | None = None
) -> list[RegisteredModel]:
    """Every registered model that fits a filter, or so many of them."""
    client = MlflowClient()
    return every(
        lambda count, token: client.search_registered_models(filter_string, count, order_by, token), max_results
    )


def search_model_versions(
    max_results: int | None = None, filter_string: str | None = None, order_by: Sequence[str] | str | None = None
) -> list[ModelVersion]:
    """Every version that fits a filter, or so many of them."""
    client = MlflowClient()
    return every(lambda count, token: client.search_model_versions(filter_string, count, order_by, token), max_results)


def set_model_version_tag(
    name: str, version: str | int | None = None, key: str | None = None, value: Any = None, stage: str | None = None
) -> None:
    """A tag of a version, or of the newest one of a stage; the last value stays."""
    MlflowClient().set_model_version_tag(name, version, key, value, stage)


def experiment_id() -> str:
    """Of the experiment that runs belong to; made where there is none of its name."""
    loaded = MlflowClient()._settings
    name = place.experiment() or by_id.of_question(loaded) or loaded.experiment
    return str(NamedExperiment(name).experiment_id)


def _ids(client: MlflowClient, names: Sequence[str]) -> list[str]:
    ids = []
    for name in names:
        found = client.get_experiment_by_name(name)
        if found is None:
            LOGGER.warning("stepstream: there is no experiment %r", name)
        else:
            ids.append(found.experiment_id)
    return ids


def every(page: Any, most: int | None) -> list[Any]:
    """All that a question finds, or so many of them, a page at a time."""
    found: list[Any] = []
    token = None
    while most is None or len(found) < most:
        got = page(PAGE if most is None else min(PAGE, most - len(found)), token)
        found += got
        token = got.token
        if not token:
            break
    return found

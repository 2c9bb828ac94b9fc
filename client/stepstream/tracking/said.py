"""From the server's JSON to entities. Pure."""

from collections.abc import Mapping
from typing import Any

from stepstream.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LoggedModel,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    ModelVersion,
    RegisteredModel,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
)


def experiment(said: Mapping[str, Any]) -> Experiment:
    """One experiment."""
    return Experiment(
        experiment_id=str(said["experiment_id"]),
        name=said["name"],
        artifact_location=said["artifact_location"],
        lifecycle_stage=said["lifecycle_stage"],
        tags=said["tags"],
        creation_time=said["created_at_ms"],
        last_update_time=said["updated_at_ms"],
    )


def run(said: Mapping[str, Any]) -> Run:
    """One run."""
    info = RunInfo(
        run_id=said["run_id"],
        experiment_id=str(said["experiment_id"]),
        user_id=said["user"],
        status=said["status"],
        start_time=said["start_time_ms"],
        end_time=said["end_time_ms"],
        lifecycle_stage=said["lifecycle_stage"],
        artifact_uri=said["artifact_uri"],
        run_name=said["name"],
    )
    metrics = {key: float(one["value"]) for key, one in said["metrics"].items()}
    used = said["models"]
    return Run(
        info=info,
        data=RunData(metrics=metrics, params=said["params"], tags=said["tags"]),
        inputs=RunInputs(
            dataset_inputs=[_dataset(one) for one in said["datasets"]],
            model_inputs=[LoggedModelInput(one["model_id"]) for one in used if one["direction"] == "input"],
        ),
        outputs=RunOutputs(
            model_outputs=[
                LoggedModelOutput(one["model_id"], one["step"]) for one in used if one["direction"] == "output"
            ]
        ),
    )


def logged_model(said: Mapping[str, Any]) -> LoggedModel:
    """One logged model."""
    return LoggedModel(
        model_id=said["model_id"],
        experiment_id=str(said["experiment_id"]),
        name=said["name"],
        model_type=said["model_type"] or None,
        source_run_id=said["source_run_id"],
        status=said["status"].removeprefix("LOGGED_MODEL_"),
        status_message=said["status_message"] or None,
        creation_timestamp=said["created_at_ms"],
        last_updated_timestamp=said["updated_at_ms"],
        artifact_location=said["artifact_uri"],
        params=said["params"],
        tags=said["tags"],
        metrics=[_model_metric(one, said["model_id"]) for one in said["metrics"]],
    )


def _model_metric(said: Mapping[str, Any], model_id: str) -> Metric:
    return Metric(
        key=said["key"],
        value=float(said["value"]),
        timestamp=said["time_ms"],
        step=said["step"],
        model_id=model_id,
        dataset_name=said["dataset_name"] or None,
        dataset_digest=said["dataset_digest"] or None,
        run_id=said["run_id"],
    )


def version(said: Mapping[str, Any]) -> ModelVersion:
    """One version."""
    return ModelVersion(
        name=said["name"],
        version=str(said["version"]),
        creation_timestamp=said["created_at_ms"],
        last_updated_timestamp=said["updated_at_ms"],
        description=said["description"],
        user_id=said["user"],
        current_stage=said["stage"],
        source=said["source"],
        run_id=said["run_id"],
        run_link=said["run_link"],
        tags=said["tags"],
        aliases=said["aliases"],
        model_id=said["model_id"],
    )


def registered_model(said: Mapping[str, Any]) -> RegisteredModel:
    """One registered model."""
    return RegisteredModel(
        name=said["name"],
        creation_timestamp=said["created_at_ms"],
        last_updated_timestamp=said["updated_at_ms"],
        description=said["description"],
        latest_versions=[version(one) for one in said["latest_versions"]],
        tags=said["tags"],
        aliases={alias: str(number) for alias, number in said["aliases"].items()},
    )


def _dataset(said: Mapping[str, Any]) -> DatasetInput:
    return DatasetInput(
        dataset=Dataset(
            name=said["name"],
            digest=said["digest"],
            source_type=said["source_type"],
            source=said["source"],
            schema=said["schema"] or None,
            profile=said["profile"] or None,
        ),
        tags=[InputTag(key, value) for key, value in said["tags"].items()],
    )

"""MLflow's endpoints that sign URLs of stores which clients write to by themselves.

StepStream's own artifacts are signed by `mlflow-artifacts/presigned` and `mpu`; of other stores it holds no keys.
"""

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from stepstream_ingest.artifacts.manifest import checked
from stepstream_ingest.errors import ApiError
from stepstream_ingest.mlflow.fields import Fields
from stepstream_ingest.mlflow.router import Router
from stepstream_ingest.tracking import rules
from stepstream_ingest.tracking.experiments import Experiments
from stepstream_ingest.tracking.models import LoggedModels, model_uuid
from stepstream_ingest.tracking.runs import Runs

PROXIED: Final = ("mlflow-artifacts", "http", "https")


class PresignedCalls:
    """Refuses as MLflow does, so that whoever asks goes on by the proxy."""

    def __init__(self, *, runs: Runs, models: LoggedModels, experiments: Experiments) -> None:
        self._runs = runs
        self._models = models
        self._experiments = experiments

    def add_to(self, router: Router) -> None:
        """Register the endpoints."""
        router.post("artifacts/presigned-upload-url", self.upload)
        router.post("artifacts/presigned-download-url", self.download)

    async def upload(self, said: Fields) -> Mapping[str, Any]:
        """Never a URL."""
        checked(said.required_text("path"))
        if said.has("run_id") == said.has("model_id"):
            raise rules.invalid("Exactly one of run_id and model_id must be provided.")
        if said.has("run_id"):
            _refuse((await self._runs.get(said.run_id())).artifact_location)
        model = await self._models.get(model_uuid(said.text("model_id")))
        _refuse((await self._experiments.get(model.experiment_id)).artifact_location)

    async def download(self, said: Fields) -> Mapping[str, Any]:
        """Never a URL."""
        checked(said.required_text("path"))
        _refuse((await self._runs.get(said.run_id())).artifact_location)


def _refuse(location: str) -> NoReturn:
    scheme = location.partition(":")[0]
    if scheme in PROXIED:
        raise rules.invalid(
            f"Signed URLs are for artifacts in a store that clients reach by themselves, and not for {scheme}: "
            "ask /api/2.0/mlflow-artifacts"
        )
    raise ApiError(501, "NOT_IMPLEMENTED", f"StepStream has no keys to sign URLs of {location!r:.200}")

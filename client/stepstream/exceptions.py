"""The errors under the names that MLflow's scripts catch them by."""

from stepstream.errors import QueryError, StepStreamError

MlflowException = StepStreamError
"""Whatever this package raises on purpose."""
RestException = QueryError
"""What the server has refused, or could not be asked."""

__all__ = ["MlflowException", "RestException"]

"""Values as MLflow writes them, and the words that its requests share. Pure."""

import math
import sys
from typing import Final

from stepstream_ingest.errors import ApiError
from stepstream_ingest.mlflow.fields import Fields
from stepstream_ingest.tracking.run_search import Stage

LARGEST: Final = sys.float_info.max
VIEWS: Final[dict[str, Stage]] = {"ACTIVE_ONLY": "active", "DELETED_ONLY": "deleted", "ALL": "all"}
VIEW_NUMBERS: Final = {1: "ACTIVE_ONLY", 2: "DELETED_ONLY", 3: "ALL"}


def spoken_value(value: float) -> float | str:
    """NaN is a text in protobuf's JSON; infinities are the largest doubles, as MLflow's store keeps them."""
    if math.isnan(value):
        return "NaN"
    return math.copysign(LARGEST, value) if math.isinf(value) else value


def view_type(said: Fields, name: str) -> Stage:
    """Active ones, unless deleted or all are asked for."""
    if not said.has(name):
        return "active"
    try:
        text = VIEW_NUMBERS.get(said.integer(name), "")
    except ApiError:
        text = said.text(name)
    if text not in VIEWS:
        raise ApiError(400, "INVALID_PARAMETER_VALUE", f"{name} is one of {', '.join(VIEWS)}, not {text[:40]!r}")
    return VIEWS[text]

"""The latest value of each metric as MLflow knows one: a run has no ranks there. Pure."""

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

LARGEST: Final = sys.float_info.max


def latest(series: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each key the newest value of its lowest rank's newest attempt, as MLflow writes it."""
    chosen: dict[str, Mapping[str, Any]] = {}
    for one in series:
        best = chosen.get(one["key"])
        if best is None or _order(one) < _order(best):
            chosen[one["key"]] = one
    return [
        {
            "key": key,
            "value": spoken(one["last"]),
            "timestamp": one["last_time_ms"],
            "step": one["last_step"],
        }
        for key, one in sorted(chosen.items())
    ]


def spoken(value: float) -> float | str:
    """NaN is a text in protobuf's JSON; infinities are the largest doubles, as MLflow's store keeps them."""
    if math.isnan(value):
        return "NaN"
    return math.copysign(LARGEST, value) if math.isinf(value) else value


def _order(one: Mapping[str, Any]) -> tuple[int, int]:
    return (-1 if one["rank"] is None else one["rank"], -one["attempt"])

"""Which tree of artifacts a proxied path of MLflow's means. Pure."""

import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

TREE: Final = re.compile(r"(?:.*?/)??(?:models/m-)?([0-9a-f]{32})/artifacts(?:/(.*))?", re.DOTALL)
"""The first run or model that is named: what comes after it is a path within its tree, whatever that looks like."""
OF_RUN: Final = re.compile(r"runs:/+([0-9a-f]{32})(?:/(.*))?", re.DOTALL)
OUR_SCHEME: Final = "mlflow-artifacts:"
ELSEWHERE: Final = UUID(int=0)
"""The tree of what lies under no run and no model: MLflow lets an experiment's location be any path."""


@dataclass(frozen=True, slots=True)
class Place:
    """A path in one tree."""

    owner: UUID
    path: str
    """'' is the tree itself."""


def place(proxied: str) -> Place:
    """`7/<run id>/artifacts/model/MLmodel` is `model/MLmodel` in the tree of that run."""
    match = TREE.fullmatch(proxied)
    return Place(UUID(match[1]), match[2] or "") if match else Place(ELSEWHERE, proxied)


def located(uri: str) -> Place | None:
    """Where `mlflow-artifacts:/7/<run id>/artifacts/model` or `runs:/<run id>/model` is; None for another store's."""
    match = OF_RUN.fullmatch(uri)
    if match:
        return Place(UUID(match[1]), match[2] or "")
    return place(uri.removeprefix(OUR_SCHEME).lstrip("/")) if uri.startswith(OUR_SCHEME) else None

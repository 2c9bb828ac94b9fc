"""A stock MLflow server and StepStream, asked the same: requests name objects, and answers are made comparable."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

TIMES: Final = frozenset(
    {
        "creation_time",
        "creation_timestamp",
        "creation_timestamp_ms",
        "last_update_time",
        "last_updated_timestamp",
        "last_updated_timestamp_ms",
    }
)
"""Fields that say when a server did something."""
NOT_SPOKEN: Final = frozenset({"sqlstate", "error_class", "workspace"})
"""Fields of MLflow's newest servers that no client reads."""


@dataclass(frozen=True)
class Name:
    """An object that is meant: a run, experiment or model by number. Each server has its own id for it."""

    kind: str
    number: int

    def __str__(self) -> str:
        return f"<{self.kind} {self.number}>"


@dataclass
class Side:
    """One server, and its ids."""

    url: str
    root: str
    """What its artifact locations begin with."""
    ids: dict[Name, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, said: Mapping[str, Any]) -> tuple[int, Any]:
        """Status and answer, made comparable."""
        meant = self._meant(dict(said))
        url, body = f"{self.url}/api/2.0/mlflow/{self._meant(path)}", None
        if method == "GET":
            url += "?" + urlencode(meant, doseq=True)
        else:
            body = json.dumps(meant).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                return error.code, {"error_code": json.loads(text)["error_code"]}
            except (ValueError, KeyError):
                return error.code, {"error_code": None}

    def comparable(self, answer: Any) -> Any:
        """Ids as names, without times and what is empty; what has no order is sorted."""
        names = sorted(((str(value), str(name)) for name, value in self.ids.items()), key=lambda one: -len(one[0]))
        return _plain(answer, [one for one in names if len(one[0]) > 8], self._experiments(), self.root)

    def _experiments(self) -> dict[str, str]:
        return {value: str(name) for name, value in self.ids.items() if name.kind == "experiment"}

    def _meant(self, said: Any) -> Any:
        if isinstance(said, Name):
            return self.ids.get(said, f"unknown-{said.kind}-{said.number}")
        if isinstance(said, str):
            return re.sub(r"<(\w+) (\d+)>", lambda found: self._meant(Name(found[1], int(found[2]))), said)
        if isinstance(said, dict):
            return {key: self._meant(value) for key, value in said.items()}
        return [self._meant(one) for one in said] if isinstance(said, list) else said


class Pair:
    """Both servers."""

    def __init__(self, stock: Side, ours: Side) -> None:
        self.stock, self.ours = stock, ours

    def ask(self, method: str, path: str, creates: Name | None = None, **said: Any) -> tuple[Any, Any]:
        """(status, answer) of both. With `creates`, the id that comes back gets this name."""
        answers = []
        for side in (self.stock, self.ours):
            status, answer = side.ask(method, path, said)
            if creates is not None and status == 200:
                side.ids[creates] = _new_id(creates.kind, answer)
            answers.append((status, side.comparable(answer)))
        return answers[0], answers[1]

    def must(self, method: str, path: str, creates: Name | None = None, **said: Any) -> None:
        """Both do it; the answers do not matter."""
        for status, answer in self.ask(method, path, creates, **said):
            assert status == 200, (method, path, said, status, answer)


def _new_id(kind: str, answer: Any) -> str:
    if kind == "run":
        return str(answer["run"]["info"]["run_id"])
    return str(answer["experiment_id"] if kind == "experiment" else answer["model"]["info"]["model_id"])


def _plain(said: Any, names: list[tuple[str, str]], experiments: Mapping[str, str], root: str) -> Any:
    if isinstance(said, dict):
        found = {}
        for key, value in said.items():
            if key in TIMES or key in NOT_SPOKEN:
                continue
            if key == "next_page_token" and value:
                found[key] = "<token>"
                continue
            if key == "experiment_id" and str(value) in experiments:
                found[key] = experiments[str(value)]
                continue
            plain = _plain(value, names, experiments, root)
            # What is not set is left out, or empty: clients see no difference.
            if plain not in ("", [], {}, None):
                found[key] = plain
        return found
    if isinstance(said, list):
        plain = [_plain(one, names, experiments, root) for one in said]
        if plain and all(isinstance(one, dict) and "key" in one and "step" not in one for one in plain):
            return sorted(plain, key=lambda one: str(one["key"]))
        return plain
    if isinstance(said, str):
        for value, name in names:
            said = said.replace(value, name)
        return re.sub(rf"{re.escape(root)}/\d+", "<artifacts>", said)
    return said

"""What is not a file yet: the same values have a form as JSON and as YAML."""

import json
from collections import OrderedDict
from enum import Enum, IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import yaml

from stepstream.artifacts import content
from stepstream.errors import ArtifactError


class Kind(Enum):
    TRAIN = "train"


class Level(IntEnum):
    HIGH = 3


class Mode(str, Enum):  # noqa: UP042 - as older scripts have it, whose str() is another than its value
    FAST = "fast"


class Text(str):
    __slots__ = ()


class Number(float):
    __slots__ = ()


OF_A_CONFIG = {
    "model": OrderedDict(width=np.float64(1.5), depth=np.int64(3), ok=np.bool_(True)),
    "where": Path("/data/set"),
    "kind": Kind.TRAIN,
    "level": Level.HIGH,
    "lr": np.float32(0.5),
    "shape": np.array([[1, 2], [3, 4]]),
    "pair": (1, 2),
    "text": np.str_("a"),
    "own": Text("b"),
    "mode": Mode.FAST,
    "number": Number(0.25),
    "proxy": MappingProxyType({"a": 1}),
}
PLAIN = {
    "model": {"width": 1.5, "depth": 3, "ok": True},
    "where": "/data/set",
    "kind": "Kind.TRAIN",
    "level": 3,
    "lr": 0.5,
    "shape": [[1, 2], [3, 4]],
    "pair": [1, 2],
    "text": "a",
    "own": "b",
    "mode": "fast",
    "number": 0.25,
    "proxy": {"a": 1},
}


@pytest.mark.parametrize(
    ("path", "read"), [("a.json", json.loads), ("a.yaml", yaml.safe_load), ("a.yml", yaml.safe_load)]
)
@pytest.mark.parametrize(
    ("said", "expected"),
    [(OF_A_CONFIG, PLAIN), ([1, "a"], [1, "a"]), ([OF_A_CONFIG], [PLAIN]), (MappingProxyType({"a": 1}), {"a": 1})],
)
def test_what_a_config_holds_is_written(path: str, read: Any, said: Any, expected: Any) -> None:
    assert read(content.of_dict(said, path)) == expected


def test_keys_of_yaml_stay_what_they_are() -> None:
    assert yaml.safe_load(content.of_dict({1: "a", np.int64(2): "b"}, "a.yaml")) == {1: "a", 2: "b"}


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("path", ["a.json", "a.yaml"])
def test_what_has_no_form_is_an_artifact_error(path: str) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for said in ({"a": Unspeakable()}, deep):
        with pytest.raises(ArtifactError, match=path):
            content.of_dict(said, path)

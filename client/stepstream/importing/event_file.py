"""The border to the `tensorboard` package, which knows what is in an event file of any age."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepstream.errors import ConfigurationError
from stepstream.importing.event_records import Damage, records


class Tensorboard:
    """What is needed of it. Raises ConfigurationError where it is not installed."""

    def __init__(self) -> None:
        try:
            from tensorboard import data_compat, dataclass_compat
            from tensorboard.compat.proto import event_pb2
            from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
            from tensorboard.plugins.hparams import plugin_data_pb2
            from tensorboard.util.tensor_util import make_ndarray
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"reading event files needs the package {error.name!r}: pip install 'stepstream[import-tensorboard]'"
            ) from error
        self.checksum: Any = pywrap_tensorflow.masked_crc32c
        self.event: Any = event_pb2.Event.FromString
        self.by_content: Any = data_compat.migrate_event
        self.by_kind: Any = dataclass_compat.migrate_event
        self.hparams: Any = plugin_data_pb2.HParamsPluginData.FromString
        self.array: Any = make_ndarray


class EventFile:
    """One file. Law: what is damaged in it hides nothing else, as far as anybody can tell where that begins."""

    def __init__(self, path: Path, tensorboard: Tensorboard) -> None:
        self.path = path
        self._tensorboard = tensorboard
        self.problem = ""
        """What the last reading to the end left out, and why; empty where it left out nothing."""

    def events(self) -> Iterator[Any]:
        """As a TensorBoard of today would have written them. Raises OSError."""
        # TensorBoard's own loader stops at the first damage, and says nothing of it.
        damages: list[Damage] = []
        metadata: dict[str, Any] = {}
        with self.path.open("rb") as file:
            for record in records(file, os.fstat(file.fileno()).st_size, self._tensorboard.checksum):
                if isinstance(record, Damage):
                    damages.append(record)
                else:
                    event = self._tensorboard.by_content(self._tensorboard.event(record))
                    yield from self._tensorboard.by_kind(event, metadata)
        self.problem = f"{self.path}: {_said(damages)}" if damages else ""


def _said(damages: list[Damage]) -> str:
    first, last = damages[0], damages[-1]
    if last.is_last and not last.at:
        return "this is no event file, or its beginning is damaged; it was left out"
    records = len(damages) - last.is_last
    rest = [f"what comes after byte {last.at} was left out, for it is damaged there"] if last.is_last else []
    single = [f"{records} damaged records were left out, the first at byte {first.at}"] if records else []
    return "; ".join([*single, *rest])

"""What a training says, on its way into the buffer: checked, copied, and counted where it cannot be kept."""

import operator
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from stepstream.buffer import Buffer, Note
from stepstream.errors import BadValue
from stepstream.keys import clean, key_problem
from stepstream.notices import Notices
from stepstream.settings import Settings
from stepstream.values import IMMEDIATE, Deferred, capture
from stepstream_schema import limits

WAKE_BYTES: Final = 4 * 2**20
"""Seal before the interval is over when this much waits: about 50,000 values, one full frame."""

REMOVED: Final = object()
"""The value of a tag that is removed."""


class Intake:
    """Law: what is lost is counted, and said once; only `push_note` and `log_with_care` raise.

    `Run.log` itself is the way of nearly every row; these are the others.
    """

    def __init__(
        self,
        *,
        run_id: str,
        settings: Settings,
        notices: Notices,
        wake: Callable[[], None],
        pushed: Callable[[], None],
    ) -> None:
        """`wake` when much waits; `pushed` after each push, whatever has become of it."""
        self._run_id = run_id
        self._settings = settings
        self._notices = notices
        self._pushed = pushed
        self.buffer = Buffer(settings.buffer_bytes, min(WAKE_BYTES, settings.buffer_bytes // 4), wake)
        self.ending = False
        """Nothing that is said from now on could still be waited for."""
        self.points_dropped = 0
        self.bad_values = 0

    def log_or_count(self, metrics: Mapping[str, Any], step: Any, time_ms: int | None = None) -> None:
        """One row, of now or of `time_ms`, whatever it may hold."""
        try:
            self.log_with_care(dict(metrics), step, None if time_ms is None else operator.index(time_ms) * 1_000_000)
        except Exception as error:  # noqa: BLE001 - the law of this class
            self.bad(error)

    def log_with_care(self, values: dict[str, Any], step: Any, at_ns: int | None = None) -> None:
        """The same, of a dict that is given away. Raises what a foreign type raises."""
        if step is not None and type(step) is not int:
            step = operator.index(step)
        if IMMEDIATE.issuperset(map(type, values.values())):
            taken = self.buffer.push(values, step, at_ns)
        else:
            # Adding up tensors would launch work on their device: from now on types are asked one by one.
            self.buffer.deny_fast()
            taken = self._push_captured(values, step, at_ns)
        self.take(taken, len(values))

    def take(self, taken: bool, values: int) -> None:
        """What follows a push, whichever way it came."""
        if not taken:
            self.drop(values)
        self._pushed()

    def note(self, kind: str, key: str, value: object, most_chars: int) -> None:
        """A param or a tag."""
        try:
            text = None if value is REMOVED else clean(value)
            if text is not None and len(text) > most_chars:
                self._notices.once(f"{kind} cut", f"the value of {kind} {key!r} was cut to {most_chars} characters")
                text = text[:most_chars]
            problem = key_problem(key)
            if problem:
                raise BadValue(problem)
            self.push_note(Note(kind, key, text, time.time_ns() // 1_000_000))
        except Exception as error:  # noqa: BLE001 - the law of this class
            self.bad(error)

    def push_note(self, note: Note) -> None:
        """One that is made already. Raises BadValue once the run has ended."""
        if self.ending:
            raise BadValue("the run is finished")
        self.take(self.buffer.push_note(note), 1)

    def end_as(self, status: str) -> None:
        """The last status."""
        if not self.buffer.push_note(Note("status", "", status, time.time_ns() // 1_000_000)):
            self.drop(1)

    def pairs(self, said: object) -> list[tuple[str, object]]:
        """Of what should be a mapping."""
        try:
            return list(dict(said).items())  # type: ignore[call-overload]
        except Exception as error:  # noqa: BLE001 - the law of this class
            self.bad(error)
            return []

    def name(self, said: object) -> str:
        """A name as every frame can carry it: one that cannot be stored must not end what it only names."""
        name = clean(said)[: limits.MAX_NAME_CHARS]
        if name != str(said):
            self._notices.once("name", f"a name cannot be stored as it is, and was changed to {name[:80]!r}")
        return name

    def bad(self, error: Exception) -> None:
        """A value that is none."""
        self.bad_values += 1
        try:
            problem = str(error)
        except Exception:  # noqa: BLE001 - an error of a user's own type may have nothing to say
            problem = type(error).__name__
        self._notices.once("bad value", f"a value was not logged ({problem}); further ones are counted in run.stats")

    def drop(self, points: int) -> None:
        """Points for which there is no room."""
        self.points_dropped += points
        if self.ending:
            self._notices.once("finished", f"run {self._run_id} is finished; what is logged after that is dropped")
            return
        self._notices.once(
            "buffer",
            f"the buffer of {self._settings.buffer_bytes >> 20} MiB is full and new points are dropped and counted "
            "(run.stats.points_dropped); training goes on. Raise STEPSTREAM_BUFFER_BYTES or log less often.",
        )

    def give_up_late(self) -> None:
        """Values that are still on their device are lost."""
        late = self.buffer.give_up_late()
        if late:
            self.points_dropped += late
            self._notices.once("device", f"{late} values were still on their device when the run ended; they are lost")

    def _push_captured(self, values: dict[str, Any], step: int | None, at_ns: int | None) -> bool:
        captured: dict[str, float | Deferred] = {}
        for key, value in values.items():
            try:
                captured[key] = value if type(value) in IMMEDIATE else capture(value)
            except BadValue as error:
                self.bad(BadValue(f"{key[:40]!r}: {error}" if isinstance(key, str) else key_problem(key)))
            except Exception as error:  # noqa: BLE001 - whatever a foreign type raises, the values beside it live
                self.bad(error)
        if not captured:
            return True
        if any(isinstance(value, Deferred) for value in captured.values()):
            return self.buffer.push_deferred(captured, step, at_ns)
        return self.buffer.push(captured, step, at_ns)  # type: ignore[arg-type]

"""When numbers below the frames at hand count as lost. Pure: knows no clock and no file."""

from typing import Final, Literal, TypeAlias

PATIENCE_ANSWERS: Final = 60
"""For so many answers, half a second apart, a mark may stand still before what lies beyond it is left for later."""

Verdict: TypeAlias = Literal["wait", "fill", "leave"]


class Gap:
    """Law: numbers are given up only after two answers in a row with the same mark, and nobody had them at either.

    It is answers that count and not seconds: while the server is away nobody can move the mark. Once is not enough, as
    a directory that is read while a file in it is renamed may show neither name.
    """

    def __init__(self) -> None:
        self._mark = -1
        self._answers = 0
        self._unowned = 0

    def seen(self, mark: int, *, owned: bool) -> Verdict:
        """The server's mark after an answer, and whether somebody has a segment with lower numbers."""
        if mark != self._mark:
            self._mark, self._answers, self._unowned = mark, 0, 0
        self._answers += 1
        self._unowned = 0 if owned else self._unowned + 1
        if self._unowned > 1:
            return "fill"
        return "leave" if owned and self._answers > PATIENCE_ANSWERS else "wait"

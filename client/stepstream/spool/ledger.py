"""Which segments still hold a frame that somebody may need. Pure."""

from stepstream.spool.writer import Location


class Ledger:
    """Law: a segment's number comes out once, when it is no longer written to and all its frames are acknowledged."""

    def __init__(self) -> None:
        self._waiting: dict[int, int] = {}
        self._current = 0

    def sealed(self, place: Location) -> list[int]:
        """A frame was written; segments before its own are complete, and those that nobody needs come out."""
        self._waiting[place.number] = self._waiting.get(place.number, 0) + 1
        self._current = place.number
        done = [number for number, left in self._waiting.items() if not left and number < place.number]
        for number in done:
            del self._waiting[number]
        return done

    def acknowledged(self, place: Location) -> list[int]:
        """A frame is needed no longer; the segments that can be removed now."""
        self._waiting[place.number] -= 1
        if self._waiting[place.number] or place.number == self._current:
            return []
        del self._waiting[place.number]
        return [place.number]

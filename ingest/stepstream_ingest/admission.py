"""How much may be held at once: frames that wait for a commit, and bodies that are on their way. Pure."""


class Admission:
    """Bounded in bytes and in requests.

    Law: what `try_admit` took is held until it is `release`d, and the sums never exceed the bounds, but for one
    request that finds nothing else there.
    """

    def __init__(self, *, max_bytes: int, max_requests: int) -> None:
        self._max_bytes = max_bytes
        self._max_requests = max_requests
        self.bytes = 0
        self.requests = 0

    def try_admit(self, size: int) -> bool:
        """Take a request of that many bytes, or say that there is no room."""
        full = self.requests >= self._max_requests or self.bytes + size > self._max_bytes
        if full and self.requests:
            return False
        self.bytes += size
        self.requests += 1
        return True

    def release(self, size: int) -> None:
        """The request is answered."""
        self.bytes -= size
        self.requests -= 1

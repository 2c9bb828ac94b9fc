"""What may be logged as a metric, taken in the training loop without waiting for any device."""

from typing import Any, Final

from stepstream.errors import BadValue

IMMEDIATE: Final = frozenset({float, int, bool})
"""Types that need no care: immutable, and the framer reads them all at once."""


class Deferred:
    """A number that is still on its device.

    Law: `resolve` gives the value that the tensor had when it was captured, whatever is written into it later.
    """

    __slots__ = ("_event", "_held")

    def __init__(self, held: Any, event: Any = None) -> None:
        self._held = held
        self._event = event

    def ready(self) -> bool:
        """Whether resolving would not wait."""
        if self._event is not None:
            return bool(self._event.query())
        is_ready = getattr(self._held, "is_ready", None)
        return bool(is_ready()) if is_ready is not None else True

    def resolve(self) -> float:
        """The number; waits for the device if it must."""
        if self._event is not None:
            self._event.synchronize()
        return _number(self._held.item())


def capture(value: Any) -> "float | Deferred":
    """`value` as a float, or as one that is read from its device later. Raises BadValue when it is no number."""
    module = type(value).__module__.partition(".")[0]
    if module == "torch":
        return _capture_torch(value)
    if module in ("jax", "jaxlib") and hasattr(value, "is_ready"):
        if value.size != 1:
            raise BadValue(f"an array of shape {tuple(value.shape)} is not one number; log its mean, or each element")
        return Deferred(value)  # immutable, so holding it is enough
    if isinstance(value, str | bytes) or value is None:
        raise BadValue(f"{value!r:.60} is not a number")
    try:
        return _number(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError) as error:
        raise BadValue(f"a {type(value).__name__} is not one number: {error}") from error


def _capture_torch(tensor: Any) -> "float | Deferred":
    if tensor.numel() != 1:
        raise BadValue(f"a tensor of shape {tuple(tensor.shape)} is not one number; log its mean, or each element")
    if tensor.device.type == "cpu":
        return _number(tensor.item())
    # Cloned on the current stream, behind the work that computes it and before what the user does to it next.
    held = tensor.detach().clone()
    event = None
    if tensor.device.type == "cuda":
        import torch  # loaded already: the tensor came from it

        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(tensor.device))
    return Deferred(held, event)


def _number(value: Any) -> float:
    if isinstance(value, complex):
        raise BadValue("a complex number is not a metric; log its real and imaginary parts")
    try:
        return float(value)
    except OverflowError:
        raise BadValue("an integer exceeds the range of float64") from None

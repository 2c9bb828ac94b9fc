"""What may be logged as a metric, taken in the training loop without waiting for any device."""

import math
import sys
from functools import lru_cache
from typing import Any, Final

from stepstream.errors import BadValue

IMMEDIATE: Final = frozenset({float, int, bool})
"""Types that need no care: immutable, and the framer reads them all at once."""
NUMPY_NOT_NUMBERS: Final = "MmSU"
"""Kinds of NumPy's dtypes that `item` turns into what only looks like a number: times, durations and text."""
OUT_OF_RANGE: Final = "it exceeds the range of float64"


class Deferred:
    """A number that is still on its device.

    Law: `resolve` gives the value that the tensor had when it was captured, whatever is written into it later.
    """

    __slots__ = ("_event", "_held")

    def __init__(self, held: Any, event: Any = None) -> None:
        self._held = held
        self._event = event

    def ready(self) -> bool:
        """Whether resolving would not wait. Never raises: when the device is in trouble, `resolve` says so."""
        try:
            if self._event is not None:
                return bool(self._event.query())
            is_ready = getattr(self._held, "is_ready", None)
            return bool(is_ready()) if is_ready is not None else True
        except Exception:  # noqa: BLE001 - asked for many values at once, of which one must not stop the others
            return True

    def resolve(self) -> float:
        """The number; waits for the device if it must. Raises whatever its framework does."""
        if self._event is None:
            return _number(self._held.item())
        self._event.synchronize()
        return _number(_read_from_cuda(self._held))


def capture(value: Any) -> "float | Deferred":
    """`value` as a float, or as one that is read from its device later. Raises BadValue, and nothing else."""
    try:
        return _captured(value)
    except BadValue:
        raise
    except Exception as error:  # whatever a foreign type raises, the values beside it are logged
        raise BadValue(f"a {type(value).__name__} is not one number: {error}") from error


def read(captured: "float | Deferred") -> float:
    """What `capture` gave, as a number; waits for its device if it must."""
    return captured.resolve() if isinstance(captured, Deferred) else captured


def _captured(value: Any) -> "float | Deferred":
    if isinstance(value, float):  # NumPy's float64 is one
        return float(value)
    homes = _homes(type(value).__mro__)
    if "torch" in homes and hasattr(value, "numel") and hasattr(value, "device"):
        return _capture_torch(value)
    if not homes.isdisjoint(("jax", "jaxlib")) and hasattr(value, "is_ready"):
        _check_single(value)
        return Deferred(value)  # immutable, so holding it is enough
    if "numpy" in homes and hasattr(value, "dtype"):
        _check_single(value)
        if value.dtype.kind in NUMPY_NOT_NUMBERS:
            raise BadValue(f"a NumPy value of type {value.dtype} is not a number")
        if getattr(value, "mask", False):
            raise BadValue("a masked value is not a number")
    if isinstance(value, str | bytes):
        raise BadValue(f"{value[:40]!r} is text, not a number")
    return _number(value.item() if hasattr(value, "item") else value)


@lru_cache(maxsize=256)
def _homes(bases: tuple[type, ...]) -> frozenset[str]:
    """Packages that a type and its bases come from; a user's own tensor is still a tensor."""
    return frozenset(base.__module__.partition(".")[0] for base in bases)


def _capture_torch(tensor: Any) -> "float | Deferred":
    if tensor.numel() != 1:
        raise BadValue(f"a tensor of shape {tuple(tensor.shape)} is not one number; log its mean, or each element")
    if tensor.device.type == "cpu":
        return _number(tensor.item())
    # Cloned on the current stream, behind the work that computes it and before what the user does to it next.
    held = tensor.detach().clone()
    event = None
    if tensor.device.type == "cuda":
        torch = sys.modules["torch"]  # the tensor came from it
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(tensor.device))
    return Deferred(held, event)


def _read_from_cuda(tensor: Any) -> Any:
    """Read on a stream of its own: on the usual one each copy would wait behind all that the training has queued."""
    cuda = sys.modules["torch"].cuda
    with cuda.stream(cuda.Stream(tensor.device)):
        return tensor.item()


def _check_single(array: Any) -> None:
    if array.size != 1:
        raise BadValue(f"an array of shape {tuple(array.shape)} is not one number; log its mean, or each element")


def _number(value: Any) -> float:
    if isinstance(value, complex):
        raise BadValue("a complex number is not a metric; log its real and imaginary parts")
    # float() itself would also parse text and bytes.
    if not (hasattr(type(value), "__float__") or hasattr(type(value), "__index__")):
        raise BadValue(f"a {type(value).__name__} is not a number")
    try:
        number = float(value)
    except OverflowError:
        raise BadValue(OUT_OF_RANGE) from None
    if math.isinf(number) and value != number:
        raise BadValue(OUT_OF_RANGE)
    return number

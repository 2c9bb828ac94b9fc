import math
import os
import struct
import subprocess
import sys
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.errors import BadValue
from stepstream.values import IMMEDIATE, Deferred, capture


def bits(value: float) -> bytes:
    """What tells -0.0 from 0.0, and one NaN from another."""
    return struct.pack("<d", value)


class Level(IntEnum):
    HIGH = 3


class Answer:
    def __float__(self) -> float:
        return 42.0


class Index:
    def __index__(self) -> int:
        return 7


class Broken:
    def __float__(self) -> float:
        raise ZeroDivisionError("broken")


class BrokenItem:
    def item(self) -> float:
        raise RuntimeError("broken")


@given(st.floats())
def test_a_float64_keeps_its_bits(value):
    for same in (np.float64(value), np.array(value), np.array([value]), np.array([[value]])):
        captured = capture(same)
        assert type(captured) is float
        assert bits(captured) == bits(value)


@given(st.floats(width=32, allow_nan=False) | st.just(math.nan))
def test_narrow_floats_are_widened_exactly(value):
    assert bits(capture(np.float32(value))) == bits(float(np.float32(value)))


@given(st.integers(-(2**63), 2**64 - 1))
def test_integers_are_rounded_as_float_does(value):
    kind = np.int64 if value < 2**63 else np.uint64
    assert capture(kind(value)) == float(value)
    assert capture(np.array(value, kind)) == float(value)


@given(st.decimals(allow_nan=False, min_value=-(10**300), max_value=10**300) | st.fractions())
def test_decimals_and_fractions_are_taken(value):
    assert capture(value) == float(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, 1.0),
        (False, 0.0),
        (np.True_, 1.0),
        (np.array(False), 0.0),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.25), 0.25),
        (np.int8(-128), -128.0),
        (Level.HIGH, 3.0),
        (Answer(), 42.0),
        (Index(), 7.0),
        (Decimal("Infinity"), math.inf),
        (np.array(Decimal("1.5"), dtype=object), 1.5),
        (np.longdouble("-inf"), -math.inf),
        (10**308, 1e308),
        (Fraction(1, 3), 1 / 3),
    ],
)
def test_whatever_is_one_number_is_taken(value, expected):
    captured = capture(value)
    assert type(captured) is float
    assert bits(captured) == bits(expected)


def test_bfloat16_is_a_number():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes, which brings bfloat16 to NumPy, is not installed")
    assert capture(ml_dtypes.bfloat16(1.5)) == 1.5
    assert capture(np.array(1.5, ml_dtypes.bfloat16)) == 1.5


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("1.5", "text"),
        (b"1.5", "text"),
        ("x" * 10**6, "text"),
        (bytearray(b"1.5"), "bytearray"),
        (memoryview(b"1.5"), "memoryview"),
        (None, "NoneType"),
        ([1.0], "list"),
        ((1.0,), "tuple"),
        ({}, "dict"),
        (object(), "object"),
        (1j, "complex"),
        (np.complex64(1), "complex"),
        (np.array([1.0, 2.0]), r"\(2,\)"),
        (np.array([]), r"\(0,\)"),
        (np.array("1.5"), "NumPy"),
        (np.str_("1.5"), "NumPy"),
        (np.bytes_(b"1.5"), "NumPy"),
        (np.datetime64(5, "ns"), "NumPy"),
        (np.timedelta64(5, "ns"), "NumPy"),
        (np.array((1.0, 2), dtype=[("a", "f8"), ("b", "i4")]), "tuple"),
        (np.ma.masked, "masked"),
        (np.ma.array([1.0], mask=[True]), "masked"),
        (10**309, "range of float64"),
        (-(10**309), "range of float64"),
        (Fraction(10**400), "range of float64"),
        (Decimal("1e400"), "range of float64"),
        (np.array(10**309, dtype=object), "range of float64"),
        (Decimal("sNaN"), "not one number"),
        (Broken(), "broken"),
        (BrokenItem(), "broken"),
        (float, "type"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_not_one_number_is_refused_in_short_words(value, words):
    with pytest.raises(BadValue, match=words) as refused:
        capture(value)
    assert len(str(refused.value)) < 200


@pytest.mark.skipif(
    np.finfo(np.longdouble).max == np.finfo(np.float64).max, reason="long double is float64 on this machine"
)
def test_a_long_double_beyond_float64_is_not_called_infinite():
    with pytest.raises(BadValue, match="range of float64"):
        capture(np.longdouble("1e4000"))


@given(st.from_type(type).flatmap(st.from_type))
def test_nothing_but_bad_value_is_ever_raised(value):
    try:
        captured = capture(value)
    except BadValue:
        return
    assert type(captured) is float


def test_an_array_that_is_overwritten_later_keeps_the_value_it_had():
    loss = np.array(1.0)
    captured = capture(loss)
    loss[...] = 2.0
    assert captured == 1.0


def test_the_types_that_need_no_capture_are_the_immutable_numbers():
    assert frozenset({float, int, bool}) == IMMEDIATE


def test_importing_it_loads_no_framework():
    script = (
        "import sys, stepstream.values; print([n for n in ('numpy', 'torch', 'jax', 'asyncio') if n in sys.modules])"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Device:
    """Stands in for an accelerator, which no machine that runs these tests need have: its work ends when told."""

    type = "accelerator"

    def __init__(self) -> None:
        self.done = False
        self.waited = 0


class DeviceTensor:
    """What `capture` may use of a tensor there; whoever reads it before the device is done has waited."""

    def __init__(self, device: Device, value: float, elements: int = 1, tracked: bool = True) -> None:
        self.device, self.value, self.elements, self.tracked = device, value, elements, tracked
        self.shape = (elements,)

    def numel(self) -> int:
        return self.elements

    def detach(self) -> "DeviceTensor":
        return DeviceTensor(self.device, self.value, self.elements, tracked=False)

    def clone(self) -> "DeviceTensor":
        return DeviceTensor(self.device, self.value, self.elements, self.tracked)

    def is_ready(self) -> bool:
        return self.device.done

    def item(self) -> float:
        self.device.waited += not self.device.done
        return self.value


# As torch's own tensors, and users' classes that derive from them, are known.
DeviceTensor.__module__ = "torch.stand_in"


class UsersTensor(DeviceTensor):
    pass


@pytest.mark.parametrize("kind", [DeviceTensor, UsersTensor])
def test_a_tensor_on_a_device_is_copied_without_waiting_and_read_later(kind):
    device = Device()
    loss = kind(device, 1.5)
    captured = capture(loss)
    loss.value = 9.0
    assert isinstance(captured, Deferred)
    assert device.waited == 0
    assert not captured.ready()
    assert device.waited == 0
    device.done = True
    assert captured.ready()
    assert captured.resolve() == 1.5
    assert device.waited == 0


def test_the_copy_of_a_tensor_does_not_keep_its_graph_alive():
    assert capture(DeviceTensor(Device(), 1.5))._held.tracked is False


def test_a_tensor_of_several_elements_is_refused_before_it_is_copied():
    with pytest.raises(BadValue, match=r"\(3,\)"):
        capture(DeviceTensor(Device(), 1.5, elements=3))


def test_a_device_in_trouble_is_called_ready_so_that_resolving_tells():
    class Trouble:
        def query(self) -> bool:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        def synchronize(self) -> None:
            self.query()

    captured = Deferred(DeviceTensor(Device(), 1.5), Trouble())
    assert captured.ready()
    with pytest.raises(RuntimeError, match="illegal memory access"):
        captured.resolve()


class TestTorch:
    """With the real torch, where it is installed."""

    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch", reason="torch is not installed")

    def test_tensors_on_the_cpu_are_read_at_once(self, torch):
        for value in (1.5, -0.0, math.inf):
            for tensor in (torch.tensor(value), torch.tensor([value]), torch.nn.Parameter(torch.tensor(value))):
                captured = capture(tensor)
                assert type(captured) is float
                assert bits(captured) == bits(value)

    @pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64", "int8", "int64", "bool"])
    def test_every_kind_of_number_is_taken(self, torch, name):
        assert capture(torch.tensor(1, dtype=getattr(torch, name))) == 1.0

    def test_a_tensor_that_is_overwritten_later_keeps_the_value_it_had(self, torch):
        loss = torch.tensor(1.0)
        captured = capture(loss)
        loss.fill_(2.0)
        assert captured == 1.0

    def test_what_is_not_one_number_is_refused(self, torch):
        parts = (torch.zeros(2), torch.zeros(0), torch.tensor(1j), torch.float32, torch.device("cpu"), torch.Size([1]))
        for value in (*parts, torch.nn.Linear(1, 1)):
            with pytest.raises(BadValue):
                capture(value)

    def test_a_tensor_without_data_fails_when_it_is_resolved_and_not_in_the_training(self, torch):
        captured = capture(torch.zeros((), device="meta"))
        assert isinstance(captured, Deferred)
        with pytest.raises(Exception, match="meta"):
            captured.resolve()

    def test_a_loss_on_cuda_is_read_later_with_the_value_it_had_and_not_behind_later_work(self, torch):
        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device")
        loss = torch.full((), 1.5, device="cuda", requires_grad=True)
        captured = capture(loss * 1)
        matrix = torch.ones((4096, 4096), device="cuda")
        torch.cuda.synchronize()
        with torch.no_grad():
            loss.fill_(9.0)
        for _ in range(200):
            matrix = matrix @ matrix / 4096
        behind = torch.cuda.Event()
        behind.record()
        assert captured.ready()
        assert captured.resolve() == 1.5
        assert not behind.query()
        torch.cuda.synchronize()


class TestJax:
    """With the real JAX, where it is installed."""

    @pytest.fixture
    def jax(self):
        return pytest.importorskip("jax", reason="jax is not installed")

    def test_arrays_are_held_and_read_later(self, jax):
        for array in (jax.numpy.float32(1.5), jax.numpy.array([1.5]), jax.numpy.bfloat16(1.5)):
            captured = capture(array)
            assert isinstance(captured, Deferred)
            assert captured.resolve() == 1.5
            assert captured.ready()

    def test_what_is_not_one_number_is_refused(self, jax):
        with pytest.raises(BadValue, match=r"\(2,\)"):
            capture(jax.numpy.zeros(2))

    def test_a_value_inside_a_traced_function_is_refused_or_fails_when_it_is_resolved(self, jax):
        problems = []

        def traced(x):
            try:
                captured = capture(x)
                assert isinstance(captured, Deferred)
                captured.resolve()
            except Exception as error:  # noqa: BLE001 - JAX has many, by version
                problems.append(error)
            return x

        jax.jit(traced)(1.0)
        assert len(problems) == 1

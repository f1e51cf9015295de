"""Messages and arrays survive the way; nothing that is not as agreed gets through."""

import struct
import subprocess
import sys
from typing import Any

import msgpack
import numpy as np
import pytest

from lerobot_wam.serving.limits import LIMITS, Limits
from lerobot_wam.serving.protocol import DTYPES, ProtocolError, field, pack, unpack


def array(**changes: Any) -> bytes:
    body = {"dtype": "float32", "shape": [2], "data": struct.pack("<2f", 1, 2)} | changes
    return msgpack.packb({"type": "observe", "state": {"array": body}})


def refused(data: bytes | str, limits: Limits = LIMITS) -> ProtocolError:
    with pytest.raises(ProtocolError) as raised:
        unpack(data, limits)
    return raised.value


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (1, 2, 3, 1)])
def test_arrays_come_back_as_they_were(dtype: str, shape: tuple[int, ...]):
    sent = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    received = unpack(pack({"type": "t", "nested": {"list": [sent]}}))["nested"]["list"][0]
    assert received.dtype == sent.dtype
    assert received.shape == sent.shape
    np.testing.assert_array_equal(received, sent)


def test_any_memory_order_comes_back_in_c_order():
    sent = np.arange(6, dtype=">i4").reshape(2, 3).T
    np.testing.assert_array_equal(unpack(pack({"type": "t", "x": sent}))["x"], sent)


@pytest.mark.parametrize("value", [np.array([{}]), np.float16([1]), np.array(["a"]), {1, 2}])
def test_other_values_are_not_packed(value: Any):
    with pytest.raises(TypeError):
        pack({"type": "t", "x": value})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not one msgpack map"),
        (b"\xc1", "not one msgpack map"),
        (msgpack.packb([1]), "is a list, expected one msgpack map"),
        (msgpack.packb({"type": 3}), "field 'type' is int, expected str"),
        (msgpack.packb({"type": "t"}) + b"\x00", "not one msgpack map"),
        (msgpack.packb({"type": "t", "x": msgpack.ExtType(4, b"x")}), "not one msgpack map"),
        (msgpack.packb({"type": "t", "x": "a" * 5000}), "not one msgpack map"),
        (msgpack.packb({"type": "t", "x": [0] * 2000}), "not one msgpack map"),
        (msgpack.packb({"type": "t", 7: 1}), "not one msgpack map"),
        (msgpack.packb({"type": b"t"}), "field 'type' is bytes"),
        (b"\x91" * 3000 + b"\xc0", "not one msgpack map"),
        ("text", "found a text message"),
        (array(dtype="object"), "dtype 'object', expected one of uint8"),
        (array(dtype=["float32"]), "expected one of uint8"),
        (array(shape=[3]), "holds 8 bytes, expected 12 bytes"),
        (array(shape=[2**62, 4]), "expected 73786976294838206464 bytes"),
        (array(shape=[-2]), "not a list of sizes"),
        (array(shape=[2.0]), "not a list of sizes"),
        (array(shape=[True, 2]), "not a list of sizes"),
        (array(shape=[2, 1, 1, 1, 1]), "5 axes, expected at most 4"),
        (array(data="text"), "holds str, expected 8 bytes"),
        (array(more=1), "array is malformed"),
    ],
)
def test_malformed_messages_are_refused(data: bytes | str, words: str):
    error = refused(data)
    assert words in str(error)
    assert error.code == "bad_message"


def test_a_message_that_is_too_large_is_not_even_read():
    assert refused(b"\xc1" * 11, Limits(message_bytes=10)).code == "too_large"


def test_many_small_containers_are_refused_while_they_are_read():
    assert "more than 4096 maps and lists" in str(refused(msgpack.packb({"type": "t", "x": [[[]] * 900] * 9})))


@pytest.mark.parametrize(
    ("value", "kind"), [(True, int), (1.5, int), ("1", int), (float("nan"), float), (float("inf"), float), (1, bool)]
)
def test_fields_of_another_type_are_refused(value: Any, kind: type):
    with pytest.raises(ProtocolError, match="field 'x' is"):
        field({"type": "t", "x": value}, "x", kind)


def test_a_field_may_be_absent_only_where_it_has_a_default():
    assert field({"x": None}, "x", str, default="y") == "y"
    assert field({"x": 2}, "x", float) == 2.0
    with pytest.raises(ProtocolError, match="field 'x' is absent, expected str"):
        field({}, "x", str)


def test_the_protocol_needs_no_torch_and_no_lerobot():
    program = "import sys, lerobot_wam.serving.protocol; print({'torch', 'lerobot'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"

from __future__ import annotations

import math
import struct
from array import array
from typing import Any

import numpy as np
import pytest

from agentos_store.errors import InvalidValueError
from agentos_store.types import Float32Vector
from tests.types.conftest import RoundTrip

VECTOR = Float32Vector()


@pytest.mark.parametrize(
    "given",
    [
        [1.0, -2.5, 0.1],
        (1, -2.5, 0.1),
        struct.pack("<3f", 1, -2.5, 0.1),
        bytearray(struct.pack("<3f", 1, -2.5, 0.1)),
        memoryview(struct.pack("<3f", 1, -2.5, 0.1)),
        memoryview(array("d", [1, -2.5, 0.1])),
        np.array([1, -2.5, 0.1]),
        np.array([1, -2.5, 0.1], ">f4"),
        np.array([1, 0, -2.5, 0, 0.1, 0], np.float16)[::2].astype(np.float64) * 0 + np.array([1, -2.5, 0.1]),
    ],
)
def test_whatever_it_comes_as_it_is_the_same_bytes(round_trip: RoundTrip, given: Any) -> None:
    for found in round_trip(VECTOR, given).values():
        assert found == struct.pack("<3f", 1, -2.5, 0.1)
        assert type(found) is bytes


@pytest.mark.parametrize(
    ("given", "name", "why"),
    [
        ([], "v", "0 dimensions"),
        (b"", "v", "0 dimensions"),
        (b"abc", "v", "3 bytes"),
        ([0.0, -0.0], "v", "zero"),
        ([1e-60], "v", "zero"),
        ([1.0, math.nan], "v[1]", "finite"),
        ([math.inf, -math.inf], "v[0]", "finite"),
        ([1e39, 1.0], "v[0]", "finite"),
        (np.array([1.0, 1e39]), "v[1]", "finite"),
        (struct.pack("<2f", 1, math.nan), "v[1]", "finite"),
        ([1.0] * 16_001, "v", "16,001 dimensions"),
        (["1"], "v", "no number"),
        ([None], "v", "no number"),
        ([10**400], "v", "too large"),
        ("1,2", "v", "str"),
        (1.0, "v", "float"),
        ({1.0}, "v", "set"),
        (np.ones((2, 2)), "v", "2 dimensions"),
        (np.ones((2, 2)).data, "v", "no number"),
        (np.array(["a"]), "v", "vector"),
        (np.array([1j]), "v", "vector"),
    ],
)
def test_what_has_no_distance_is_refused(given: Any, name: str, why: str) -> None:
    with pytest.raises(InvalidValueError, match=why) as caught:
        VECTOR.check(given, "v")
    assert caught.value.name == name

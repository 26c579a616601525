import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.arrays import Columns

ROW = np.dtype([("number", np.int32), ("pair", np.int16, (2,))])


@given(st.lists(st.one_of(st.integers(-9, 9), st.lists(st.integers(-9, 9), max_size=200))))
def test_columns_hold_what_a_list_would(steps):
    columns, expected = Columns(np.int64), []
    for step in steps:
        if isinstance(step, int):
            assert columns.append(step) == len(expected)
            expected.append(step)
        else:
            columns.extend(np.array(step, dtype=np.int64))
            expected += step
        assert len(columns) == len(expected)
    assert columns.view.tolist() == expected


def test_rows_may_have_fields_or_a_shape():
    structured, shaped = Columns(ROW), Columns(np.float32, (3,))
    for i in range(200):
        structured.append((i, (i, -i)))
        shaped.append([i, i + 1, i + 2])
    assert structured.view["number"].tolist() == list(range(200))
    assert structured.view["pair"][150].tolist() == [150, -150]
    assert shaped.view.shape == (200, 3)
    assert shaped.view[199].tolist() == [199, 200, 201]


def test_a_view_is_read_only_and_keeps_its_rows_when_the_columns_grow():
    columns = Columns(np.int64)
    columns.extend(np.arange(10))
    view = columns.view
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    columns.extend(np.arange(1000))
    assert view.tolist() == list(range(10))
    assert columns.append(5) == 1010


def test_growing_copies_seldom():
    columns, stores = Columns(np.int64), set()
    for i in range(20_000):
        columns.append(i)
        stores.add(columns.view.__array_interface__["data"][0])
    assert len(stores) <= 12

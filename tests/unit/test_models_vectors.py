from __future__ import annotations

import numpy as np
import pytest

from modules.models.vectors import unit_rows


def test_rows_get_unit_norm_and_zero_rows_stay_zero() -> None:
    rows = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous


def test_large_and_small_numbers_keep_their_direction() -> None:
    rows = unit_rows(np.array([[3e30, 4e30], [3e-30, 4e-30]], np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.6, 0.8]], rtol=1e-5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_a_number_that_is_not_finite_as_float32_is_an_error(wrong: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        unit_rows(np.array([[1.0, wrong]]))

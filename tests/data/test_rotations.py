from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from omnistage.data.errors import InputError
from omnistage.data.rotations import (
    LAYOUTS,
    Floats,
    axis_angle_to_matrices,
    geodesic_deg,
    matrices_to_axis_angle,
    matrices_to_six,
    six_to_matrices,
    without_yaw,
)

QUARTER_Z = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
SIX = {"columns": [0, 1, 0, -1, 0, 0], "interleaved": [0, -1, 1, 0, 0, 0], "rows": [0, -1, 0, 1, 0, 0]}

numbers = st.floats(-10, 10, allow_nan=False)
vectors = st.tuples(numbers, numbers, numbers)


def about(axis: int, angle: float) -> Floats:
    vector = np.zeros(3)
    vector[axis] = angle
    return axis_angle_to_matrices(vector)


def test_the_layouts_are_all_here() -> None:
    assert set(SIX) == set(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_quarter_turn_about_z_in_each_layout(layout: str) -> None:
    assert matrices_to_six(QUARTER_Z, layout).tolist() == SIX[layout]
    assert_allclose(six_to_matrices(np.array(SIX[layout]), layout), QUARTER_Z, atol=1e-15)


@pytest.mark.parametrize(
    ("vector", "matrix"),
    [
        ([0.0, 0.0, 0.0], np.eye(3)),
        ([0.0, 0.0, math.pi / 2], QUARTER_Z),
        ([math.pi / 2, 0.0, 0.0], [[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
        ([0.0, math.pi, 0.0], np.diag([-1.0, 1.0, -1.0])),
        ([0.0, 0.0, -2 * math.pi], np.eye(3)),
        ([2e-9, 0.0, 0.0], [[1, 0, 0], [0, 1, -2e-9], [0, 2e-9, 1]]),
        ([5e-324, 0.0, 0.0], np.eye(3)),
    ],
)
def test_known_turns(vector: list[float], matrix: Floats) -> None:
    assert_allclose(axis_angle_to_matrices(vector), matrix, rtol=1e-12, atol=1e-15)


@given(vectors)
def test_matrices_are_rotations_and_turn_back(vector: tuple[float, float, float]) -> None:
    matrix = axis_angle_to_matrices(vector)
    assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    assert_allclose(axis_angle_to_matrices(-np.array(vector)), matrix.T, atol=1e-12)
    angle = math.remainder(float(np.linalg.norm(vector)), 2 * math.pi)
    assert np.trace(matrix) == pytest.approx(1 + 2 * math.cos(angle))


@given(vectors, st.sampled_from(LAYOUTS), st.floats(0.1, 10), st.floats(-2, 2))
def test_six_numbers_give_the_matrix_back_however_long_and_skewed(
    vector: tuple[float, float, float], layout: str, length: float, skew: float
) -> None:
    matrix = axis_angle_to_matrices(vector)
    six = matrices_to_six(matrix, layout)
    assert_allclose(six_to_matrices(six, layout), matrix, atol=1e-12)
    # What a model gives is neither of unit length nor orthogonal: the second vector may lean towards the first.
    pairs = six.reshape(3, 2).T if layout == "interleaved" else six.reshape(2, 3)
    leaning = np.stack([length * pairs[0], pairs[1] + skew * pairs[0]])
    given = (leaning.T if layout == "interleaved" else leaning).reshape(6)
    assert_allclose(six_to_matrices(given, layout), matrix, atol=1e-9)


@given(st.lists(vectors, min_size=4, max_size=4), st.sampled_from(LAYOUTS))
def test_leading_axes_are_kept(rows: list[tuple[float, float, float]], layout: str) -> None:
    batch = axis_angle_to_matrices(np.array(rows).reshape(2, 2, 3))
    six = matrices_to_six(batch, layout)
    assert (batch.shape, six.shape) == ((2, 2, 3, 3), (2, 2, 6))
    assert_allclose(six_to_matrices(six, layout)[1, 0], six_to_matrices(matrices_to_six(batch[1, 0], layout), layout), atol=1e-15)


def test_float32_stays() -> None:
    vector = np.array([0.1, -0.2, 0.3], np.float32)
    matrix = axis_angle_to_matrices(vector)
    assert matrix.dtype == np.float32
    assert six_to_matrices(matrices_to_six(matrix, "rows"), "rows").dtype == np.float32


def test_no_joints_are_no_matrices() -> None:
    assert axis_angle_to_matrices(np.zeros((0, 3))).shape == (0, 3, 3)
    assert six_to_matrices(np.zeros((0, 6)), "rows").shape == (0, 3, 3)
    assert matrices_to_axis_angle(np.zeros((0, 3, 3))).shape == (0, 3)


@given(numbers, st.floats(-1.5, 1.5), st.floats(-3, 3))
def test_yaw_is_the_last_turn_about_z(z: float, y: float, x: float) -> None:
    rest = about(1, y) @ about(0, x)
    assert_allclose(without_yaw(about(2, z) @ rest), rest, atol=1e-9)


@given(vectors)
def test_matrices_go_back_to_axis_angle(vector: tuple[float, float, float]) -> None:
    matrix = axis_angle_to_matrices(vector)
    back = matrices_to_axis_angle(matrix)
    assert np.linalg.norm(back) <= math.pi + 1e-9
    assert_allclose(axis_angle_to_matrices(back), matrix, atol=1e-9)


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 30.0, 90.0, 179.0, 180.0])
def test_the_geodesic_angle_is_that_of_the_turn_between(degrees: float) -> None:
    start = about(0, 0.3) @ about(1, -2.0)
    assert geodesic_deg(start @ about(2, math.radians(degrees)), start) == pytest.approx(degrees, rel=1e-6, abs=1e-9)
    assert geodesic_deg([[start] * 2] * 3, start).shape == (3, 2)


@pytest.mark.parametrize("six", [[0] * 6, [1, 0, 0, 2, 0, 0], [1, 0, 0, 0, 0, 0], [1, 0, 0, math.nan, 1, 0], [math.inf, 0, 0, 0, 1, 0]])
def test_two_vectors_that_span_no_plane(six: list[float]) -> None:
    with pytest.raises(InputError, match=r"^6D rotation: .*allowed: two vectors that span a plane$"):
        six_to_matrices(six, "columns")


def test_very_small_and_very_large_numbers_span_one() -> None:
    assert_allclose(six_to_matrices([0, 1e-300, 0, -1e300, 0, 0], "columns"), QUARTER_Z, atol=1e-15)


def test_layouts_and_shapes_are_checked() -> None:
    with pytest.raises(InputError, match="unknown 6D layout 'column'; did you mean 'columns'"):
        six_to_matrices(np.zeros(6), "column")
    with pytest.raises(InputError, match="unknown 6D layout 'zhou'"):
        matrices_to_six(np.eye(3), "zhou")
    with pytest.raises(InputError, match=r"got the shape \[4\]; allowed: \[\.\.\., 3\]"):
        axis_angle_to_matrices(np.zeros(4))
    with pytest.raises(InputError, match=r"got the shape \[9\]; allowed: \[\.\.\., 3, 3\]"):
        matrices_to_six(np.zeros(9), "rows")

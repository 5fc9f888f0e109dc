import pytest

from kerascnn.data import steps


@pytest.mark.parametrize(("number", "expected"), [(10, 3), (8, 2), (1, 1), (0, 0)])
def test_steps(number, expected):
    assert steps(number, 4) == expected


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="received 10 and 0"):
        steps(10, 0)
    with pytest.raises(ValueError, match="received -1 and 4"):
        steps(-1, 4)

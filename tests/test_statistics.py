"""The interval of a share, and how far confidence is from it."""

import numpy as np
import pytest

from kerascnn.statistics import calibration_error, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "level"),
    [(376, 400, 0.95), (9_353, 10_000, 0.95), (0, 7, 0.95), (7, 7, 0.95), (3, 8, 0.5)],
)
def test_the_interval_is_scipys(successes, trials, level):
    stats = pytest.importorskip("scipy.stats")
    theirs = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    ours = wilson(successes / trials, trials, level)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_the_interval_of_15_in_20():
    """0.5313 to 0.8881: method 3 of Newcombe, Statistics in Medicine 17, 1998."""
    assert wilson(15 / 20, 20) == pytest.approx((0.5313, 0.8881), abs=1e-4)


def test_the_interval_stays_within_0_and_1_and_narrows():
    assert wilson(1, 3)[1] == 1
    assert wilson(0, 3)[0] == 0
    narrow, wide = wilson(0.94, 10_000), wilson(0.94, 100)
    assert wide[0] < narrow[0] < 0.94 < narrow[1] < wide[1]


def test_what_is_refused():
    with pytest.raises(ValueError, match="share must be from 0 to 1; received 94"):
        wilson(94, 400)
    with pytest.raises(ValueError, match="trials must be a positive integer; rec"):
        wilson(0.94, 0)
    with pytest.raises(ValueError, match="level must be between 0 and 1; received 95"):
        wilson(0.94, 400, 95)


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    classes = np.array([0, 1, 1, 1])
    # Bins: two at 0.9 (half right), one at 0.8 (right), one at 0.6 (right).
    expected = 100 * (2 * 0.4 + 0.2 + 0.4) / 4
    confidence, right = probabilities.max(1), probabilities.argmax(1) == classes
    assert calibration_error(confidence, right) == pytest.approx(expected)

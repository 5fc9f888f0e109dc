"""The human on CIFAR-10."""

import dataclasses
import subprocess
import sys
from math import sqrt

import pytest

from zoo.references import HUMAN


def test_the_human():
    assert HUMAN.accuracy == 94
    low, high = HUMAN.interval
    # Both ends are as far as 1.96 standard errors of their own allow, at 400 images.
    for end in (low / 100, high / 100):
        assert abs(0.94 - end) == pytest.approx(1.959964 * sqrt(end * (1 - end) / 400))
    assert low < 94 < high
    assert "400" in HUMAN.conditions
    assert HUMAN.confidence in ("published", "second-hand", "remembered")
    with pytest.raises(dataclasses.FrozenInstanceError):
        HUMAN.accuracy = 95


def test_it_does_not_import_keras():
    code = "import sys, zoo.references; sys.exit('keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

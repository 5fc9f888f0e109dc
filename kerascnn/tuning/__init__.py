"""Bayesian optimisation of a training recipe; Optuna is loaded when it begins.

Begin with `search.py`, the loop of the trials; `space.py` says what is searched.
"""

from kerascnn.tuning.search import Trial, Tuning, tune
from kerascnn.tuning.space import parse_space, space_from

__all__ = ["Trial", "Tuning", "parse_space", "space_from", "tune"]

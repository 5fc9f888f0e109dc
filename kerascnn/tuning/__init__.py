"""Bayesian optimisation of a training recipe; Optuna is loaded when it begins."""

from kerascnn.tuning.result import Trial, Tuning
from kerascnn.tuning.search import tune
from kerascnn.tuning.space import parse_space, space_from

__all__ = ["Trial", "Tuning", "parse_space", "space_from", "tune"]

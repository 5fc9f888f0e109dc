"""Training, evaluation and prediction; what a run folder is."""

from kerascnn.training.evaluate import Evaluation, evaluate
from kerascnn.training.initialization import lsuv
from kerascnn.training.predict import Prediction, predict
from kerascnn.training.recipe import Recipe, recipe_for
from kerascnn.training.run import Run, load_run
from kerascnn.training.source import Network, open_network
from kerascnn.training.train import TrainingDivergedError, resume, train

__all__ = [
    "Evaluation",
    "Network",
    "Prediction",
    "Recipe",
    "Run",
    "TrainingDivergedError",
    "evaluate",
    "load_run",
    "lsuv",
    "open_network",
    "predict",
    "recipe_for",
    "resume",
    "train",
]

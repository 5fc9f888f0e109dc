"""Training, evaluation and prediction; what a run folder is."""

from kerascnn.training.evaluate import Evaluation, evaluate
from kerascnn.training.initialization import lsuv
from kerascnn.training.lock import FolderInUseError
from kerascnn.training.open_network import Network, open_network
from kerascnn.training.predict import Prediction, predict
from kerascnn.training.recipe import Recipe, recipe_for
from kerascnn.training.run import Run, load_run
from kerascnn.training.strategy import connect
from kerascnn.training.train import TrainingDivergedError, resume, train

__all__ = [
    "Evaluation",
    "FolderInUseError",
    "Network",
    "Prediction",
    "Recipe",
    "Run",
    "TrainingDivergedError",
    "connect",
    "evaluate",
    "load_run",
    "lsuv",
    "open_network",
    "predict",
    "recipe_for",
    "resume",
    "train",
]

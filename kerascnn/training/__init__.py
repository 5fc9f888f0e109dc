"""Training, evaluation and prediction; what a run folder is.

Begin with `train.py`: it reads as what happens to one device. `network.py` has what of
a network is trained, `fused_layers.py` how its layers compute meanwhile, `epochs.py`
what happens around every epoch, `run.py` the folder, and `strategy.py` all that several
devices and hosts do differently.
"""

from kerascnn.prediction import Prediction
from kerascnn.training.evaluate import Evaluation, evaluate, predict
from kerascnn.training.initialization import lsuv
from kerascnn.training.recipe import Recipe, recipe_for
from kerascnn.training.run import FolderInUseError, Network, Run, load_run, open_network
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

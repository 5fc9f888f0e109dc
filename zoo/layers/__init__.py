"""Custom Keras layers of the zoo, usable in any Keras model.

One layer a module, each with its paper; begin with `maxout.py`. What a layer costs it
says itself, as `kerascnn/costs.py` describes.
"""

from zoo.layers.apl import APL
from zoo.layers.average_pooling import AveragePooling2D
from zoo.layers.ceil_max_pooling import CeilMaxPooling2D
from zoo.layers.dirac import DiracInitializer
from zoo.layers.fractional_max_pooling import FractionalMaxPooling2D
from zoo.layers.gated_pooling import GatedPooling2D
from zoo.layers.identity_shortcut import IdentityShortcut
from zoo.layers.local_response_normalization import LocalResponseNormalization
from zoo.layers.maxout import Maxout
from zoo.layers.mixed_pooling import MixedPooling2D
from zoo.layers.patch_whitening import PatchWhitening2D
from zoo.layers.random_placement import RandomPlacement2D
from zoo.layers.recurrent_conv import RecurrentConv2D
from zoo.layers.tree_pooling import TreePooling2D

__all__ = [
    "APL",
    "AveragePooling2D",
    "CeilMaxPooling2D",
    "DiracInitializer",
    "FractionalMaxPooling2D",
    "GatedPooling2D",
    "IdentityShortcut",
    "LocalResponseNormalization",
    "Maxout",
    "MixedPooling2D",
    "PatchWhitening2D",
    "RandomPlacement2D",
    "RecurrentConv2D",
    "TreePooling2D",
]

"""What a network sees, and what it answers.

Every function returns data that print as text and draw themselves with `.plot()`:

    from kerascnn import explain

    print(explain.slide(image, filters, stride=2))
    explain.gradcam(model, image).plot("gradcam.png")

All but the first three take any Keras model of images: functional, Sequential, nested,
with custom and shared layers, on the TensorFlow and the JAX backend.
"""

from kerascnn.explain.answers import Confusion, Mistakes, confusion, mistakes
from kerascnn.explain.cells import Cell
from kerascnn.explain.class_activation import gradcam
from kerascnn.explain.features import Embedding, embedding
from kerascnn.explain.flow import Volume, Volumes, volumes
from kerascnn.explain.gallery import gallery
from kerascnn.explain.heat import Heatmap
from kerascnn.explain.hiding import occlusion
from kerascnn.explain.kernels import Filters, filters
from kerascnn.explain.maps import ActivationMaps, activation_maps
from kerascnn.explain.pixel_numbers import Pixels, pixels
from kerascnn.explain.placing import Windows, windows
from kerascnn.explain.sensitivity import saliency
from kerascnn.explain.sliding import Slide, Step, slide
from kerascnn.explain.tracing import Stage, Trace, trace

__all__ = [
    "ActivationMaps",
    "Cell",
    "Confusion",
    "Embedding",
    "Filters",
    "Heatmap",
    "Mistakes",
    "Pixels",
    "Slide",
    "Stage",
    "Step",
    "Trace",
    "Volume",
    "Volumes",
    "Windows",
    "activation_maps",
    "confusion",
    "embedding",
    "filters",
    "gallery",
    "gradcam",
    "mistakes",
    "occlusion",
    "pixels",
    "saliency",
    "slide",
    "trace",
    "volumes",
    "windows",
]

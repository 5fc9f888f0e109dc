"""What a network sees, and what it answers.

    print(explain.slide(image, filters, stride=2))
    explain.gradcam(model, image).plot("gradcam.png")

Results print as text and draw themselves with `.plot()`. A module is a thing seen;
begin with `windows.py`. `recording.py` runs any Keras model, and keeps every call.
"""

from kerascnn.explain.cell import Cell
from kerascnn.explain.convolution import Slide, Step, slide
from kerascnn.explain.embedding import Embedding, embedding
from kerascnn.explain.filters import Filters, filters
from kerascnn.explain.heatmap import Heatmap, gradcam, occlusion, saliency
from kerascnn.explain.maps import ActivationMaps, activation_maps
from kerascnn.explain.mistakes import Confusion, Mistakes, confusion, gallery, mistakes
from kerascnn.explain.pixels import Pixels, pixels
from kerascnn.explain.trace import Stage, Trace, trace
from kerascnn.explain.volumes import Volume, Volumes, volumes
from kerascnn.explain.windows import Windows, windows

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

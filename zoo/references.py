"""What a network is held against that is no network: a human."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """An accuracy on the CIFAR-10 test images to compare networks with.

    `confidence` is that of `zoo.registry.Published`: "published", "second-hand" or
    "remembered".
    """

    name: str
    title: str
    accuracy: float  # percent
    interval: tuple[float, float]  # percent, 95 % confidence
    conditions: str
    source: str
    confidence: str = "published"


HUMAN = Reference(
    name="human",
    title="Human (A. Karpathy)",
    accuracy=94.0,
    interval=(91.22771510995436, 95.93520298862754),  # Wilson's, of 376 in 400
    conditions="one person, 400 test images at the keyboard",
    source="A. Karpathy, Lessons learned from manually classifying CIFAR-10, "
    "27 April 2011, karpathy.github.io/2011/04/27/manually-classifying-cifar10",
    confidence="published",
)

# The networks of the lecture's ranking slide, the best first.
SLIDE = (
    "fractional_max_pooling",
    "all_cnn_large",
    "fit_resnet4",
    "tree_gated_nin",
    "deep_cnin",
    "dngo_cnn",
    "resnet110",
    "elu_cnn_18",
    "maxout_nin",
    "competitive_multiscale",
    "recurrent_cnn_160",
    "apl_nin",
)

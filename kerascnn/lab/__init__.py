"""The lab: a network that one can touch, as one HTML file.

Begin with `pack.py`: it records a network on an image and says of each call what the
page's JavaScript computes; `write` puts that and the modules of `page/` into one file.
"""

from kerascnn.lab.pack import LIMIT, pack, write

__all__ = ["LIMIT", "pack", "write"]

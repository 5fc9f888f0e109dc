"""The lab: a network that one can touch, as one HTML file or served by Python.

Begin with `pack.py`, which records a network and says what the page computes of it.
`serve.py`, of the extra [serve], answers the page of a network that cannot run in it.
"""

from kerascnn.lab.pack import LIMIT, alone, pack, write

__all__ = ["LIMIT", "alone", "pack", "write"]

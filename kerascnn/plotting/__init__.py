"""The pictures: one style, and what the figures of the package share.

Begin with `style.py` and `figures.py`; a figure of one room alone is drawn there.
"""

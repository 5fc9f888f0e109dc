"""The pictures: one style, and the curves and comparisons that rooms share.

Begin with `style.py`; a figure of one room alone is drawn there.
"""

"""The pictures: one style, and what the figures of the package share."""

"""What a network sees, and what it answers."""

from kerascnn.explain.gallery import gallery

__all__ = ["gallery"]

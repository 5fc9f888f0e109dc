"""What a measured share says of the true one."""

from math import sqrt
from statistics import NormalDist


def wilson(share: float, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval that a share of successes leaves for the true probability.

    Both ends p satisfy |share - p| = z·√(p·(1 - p)/trials): Wilson, "Probable
    Inference, the Law of Succession, and Statistical Inference", Journal of the
    American Statistical Association 22, 1927.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1; received {share!r}")
    if not isinstance(trials, int) or trials < 1:
        raise ValueError(f"trials must be a positive integer; received {trials!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1; received {level!r}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = share + z**2 / (2 * trials)
    reach = z * sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    scale = 1 + z**2 / trials
    # Exact at the ends, where rounding would leave -1e-17.
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def calibration_error(confidence, right, bins: int = 15) -> float:
    """Return the expected calibration error in percent.

    Over bins (0, 1/15], …, (14/15, 1] of `confidence` (N,): |share of `right` (N,) -
    mean confidence|, weighted by the images (Guo et al. 2017, arXiv 1706.04599, eq. 3).
    """
    import numpy as np

    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, right - np.asarray(confidence), bins)
    return 100 * float(np.abs(gaps).sum() / len(place))

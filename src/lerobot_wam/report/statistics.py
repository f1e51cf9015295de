"""How sure one can be of a success rate."""

from math import sqrt

Z_95 = 1.959963984540054
"""The normal distribution's two-sided 95 % quantile."""


def wilson_interval(successes: int, episodes: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a success rate, as fractions in [0, 1]; (0, 1) without episodes.

    Unlike the textbook interval it stays inside [0, 1] and is honest about 0 or all successes (Wilson 1927).

    Args:
        successes: Episodes that succeeded.
        episodes: Episodes in all.
        z: Quantile of the confidence level.

    Raises:
        ValueError: Not 0 <= successes <= episodes.
    """
    if not 0 <= successes <= episodes:
        raise ValueError(f"successes is {successes} of {episodes} episodes: expected 0 to {episodes}")
    if episodes == 0:
        return 0.0, 1.0
    rate, square = successes / episodes, z * z
    middle = (rate + square / (2 * episodes)) / (1 + square / episodes)
    half = z / (1 + square / episodes) * sqrt(rate * (1 - rate) / episodes + square / (4 * episodes**2))
    # The bounds are exact at the ends; rounding must not move them.
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == episodes else middle + half
    return low, high

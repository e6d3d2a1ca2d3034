"""Tests of a share against a base rate by a bootstrap over sequences, and their correction for many tests."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from repro.report.statistics import RESAMPLES

FEWEST = 5
"""Groups of sequences in which an item must stand to be tested: fewer say nothing about other texts."""

Grouped = npt.NDArray[np.float64]


def share_p(item_G2: Grouped, all_G2: Grouped) -> float | None:
    """Return the two-sided p value of an item's share against that of all tokens; None if it is too rare.

    Groups of sequences are resampled, the item and all tokens together: tokens of one text, layers of one
    token and neighbouring sequences are not independent. The difference of the shares over its bootstrapped
    standard error is compared with Student's t of G - 1 degrees. The error is taken as no smaller than that
    of independent tokens under the base rate, or a word that got two experts every time would have none.

    Args:
        item_G2: for each group of sequences the tokens of the item, and how many of them got two experts,
            mean over layers and over models (which see the same tokens).
        all_G2: the same of all tokens.
    """
    groups = len(all_G2)
    present = int((item_G2[:, 0] > 0).sum())
    tokens, total = float(item_G2[:, 0].sum()), float(all_G2[:, 0].sum())
    if present < FEWEST:
        return None
    base = float(all_G2[:, 1].sum()) / total
    difference = float(item_G2[:, 1].sum()) / tokens - base
    weights_BG = _weights(groups)
    item_B2, all_B2 = weights_BG @ item_G2, weights_BG @ all_G2
    drawn = item_B2[:, 0] > 0
    differences_B = item_B2[drawn, 1] / item_B2[drawn, 0] - all_B2[drawn, 1] / all_B2[drawn, 0]
    independent = math.sqrt(base * (1 - base) / tokens)
    error = max(float(differences_B.std()), independent)
    if error == 0:
        return 1.0
    from scipy.special import stdtr

    return min(1.0, 2 * float(stdtr(groups - 1, -abs(difference) / error)))


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """Return q values (Benjamini and Hochberg, 1995) in the order of the p values; None stays None."""
    from scipy.stats import false_discovery_control

    tested = [p for p in p_values if p is not None]
    q_values = iter(false_discovery_control(tested, method="bh").tolist())
    return [None if p is None else next(q_values) for p in p_values]


@cache
def _weights(groups: int) -> Grouped:
    """Return how often each group is drawn in each resample, (B, G): one fewer than there are."""
    generator = np.random.default_rng(0)
    return generator.multinomial(groups - 1, [1 / groups] * groups, size=RESAMPLES // 4).astype(np.float64)

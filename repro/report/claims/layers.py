"""The time of one layer against its computation (Table 1), case by case."""

import math

from repro.report.claims.evidence import Evidence
from repro.report.statistics import Estimate
from repro.report.tables.table1 import OURS, LayerTime, layer_times
from repro.results.bench import LayerTiming
from repro.results.published import Published

NOT_OF_PAPER = ("mixtral", "olmoe")
"""Layers of pretrained MoE models."""
NOTCH = 1.57
"""Half width of the 95 % interval of a median, in quartile distances over the root of the number of rounds
(McGill, Tukey and Larsen 1978, The American Statistician 32, page 14, as `matplotlib` draws it)."""
POWERED = (1.96 + 0.84) / 1.96
"""Smallest effect that is seen in 80 % of the cases, in half widths of a 95 % interval."""


def layer_time(published: Published, *, share_top1: float) -> Evidence:
    """Measure computation minus time at a share of top-1 tokens, both relative to top-2; the cases are items.

    The cases differ in sizes, precisions and machines and are no sample of anything, so there is no mean.
    Layers of other models than the paper's are none of them.
    """
    items = {
        _name(one): _difference(one)
        for one in layer_times(published)
        if one.case.size not in NOT_OF_PAPER
        and one.timing.implementation == OURS
        and one.timing.share_top1 == share_top1
    }
    return Evidence(items=items, unit="cases", sample="round")


def _name(one: LayerTime) -> str:
    case = one.case
    return f"{case.size} {case.experts}x{case.tokens} {case.precision} {case.environment.device}"


def _difference(one: LayerTime) -> Estimate:
    """Return the difference; its interval is that of both medians at their ends, None of a single round."""
    value = one.computation - one.time
    ends = [_ends(timing, one.case.repeats) for timing in (one.timing, one.base)]
    low, high, detectable = None, None, None
    if ends[0] is not None and ends[1] is not None and ends[1][0] > 0:
        low = one.computation - ends[0][1] / ends[1][0]
        high = one.computation - ends[0][0] / ends[1][1]
        detectable = POWERED * (high - low) / 2
    return Estimate(value=value, low=low, high=high, detectable=detectable, size=one.case.repeats)


def _ends(timing: LayerTiming, rounds: int) -> tuple[float, float] | None:
    if timing.both_spread is None:
        return None
    half = NOTCH * timing.both_spread / math.sqrt(rounds)
    return timing.both_seconds - half, timing.both_seconds + half

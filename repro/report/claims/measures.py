"""The measurements that a claim can name."""

from collections.abc import Callable, Mapping

from repro.report.claims import comparisons, layers, orders, shares, tokens
from repro.report.claims.definition import Claim
from repro.report.claims.evidence import Evidence
from repro.results.published import Published

MEASURES: Mapping[str, Callable[..., Evidence]] = {
    measure.__name__: measure
    for measure in (
        comparisons.time,
        comparisons.operations,
        comparisons.operations_at_evaluation,
        comparisons.loss,
        comparisons.quality,
        comparisons.quality_by_rival,
        orders.time_in_random_order,
        orders.loss_in_random_order,
        shares.share,
        shares.share_below,
        shares.order_of_shares,
        tokens.excess,
        tokens.change,
        tokens.spread,
        tokens.reversal,
        tokens.late_minus_early,
        tokens.clear,
        layers.layer_time,
    )
}
"""By the name of the function, which a claim of `claims.toml` gives its parameters."""


def measured(claim: Claim, published: Published) -> Evidence:
    """Measure a claim."""
    return MEASURES[claim.measure](published, **claim.parameters)

"""What a terminal says after a study: three lines about its claims, and where the report is."""

import pytest
from factories import compare_gates, compare_variants, make_published, make_result

from repro.report.claims.definition import claims
from repro.report.learned import learned, study_of
from repro.results.published import Published
from repro.results.run import RunResult


def run(scheme: str, seed: int, step: int, loss: float = 0.5) -> RunResult:
    """A run that gets to the baseline's loss after so many of 20 steps."""
    curve = [[0, 0.0, 1.0], [step, float(step), 0.5]]
    return make_result("sst2", scheme.replace(".", ""), seed, curve=curve, eval_loss=loss)


def schemes(adaptive: tuple[int, ...]) -> Published:
    """A study of top-2 and adaptive gating, which needs these steps and has 0.05 nats more."""
    seeds = range(len(adaptive))
    return compare_gates(
        *(run("top-2", seed, 20) for seed in seeds),
        *(run("adaptive", seed, step, 0.55) for seed, step in zip(seeds, adaptive, strict=True)),
    )


def test_three_lines_by_hand() -> None:
    """Ratios 0.7, 0.8 and 0.9: the cube root of 0.504; half width of the logs 4.303 x 0.1257 / sqrt(3)."""
    first, time, loss = learned(schemes((14, 16, 18)), "schemes")
    assert first == "Of 11 claims 1 holds, 1 does not hold, 2 are open, 7 were not measured; [ ]: 95 %"
    assert time == "Time, adaptive over top-2: 0.80 [0.58 to 1.09], paper 0.83: open"
    assert loss == "Loss, adaptive less top-2: +0.050 nats [+0.050 to +0.050]: does not hold"


def test_one_seed_has_no_interval() -> None:
    _, time, _ = learned(schemes((14,)), "schemes")
    assert time == "Time, adaptive over top-2: 0.70 [one seed: none], paper 0.83: open"


def test_what_was_not_measured_is_said() -> None:
    _, time, loss = learned(make_published(), "curriculum")
    assert time == "Time, random order over cosine: not measured"
    assert loss == "Loss, random order less cosine: not measured"


@pytest.mark.parametrize("study", ["schemes", "threshold", "curriculum", "adamoe"])
def test_a_study_has_three_lines_that_fit(study: str) -> None:
    """Also with the longest numbers and verdicts that are to be expected."""
    variants = {
        "schemes": ("top-2", "adaptive"),
        "threshold": ("top-2", "0.05", "0.2", "0.4"),
        "curriculum": ("cosine", "random"),
        "adamoe": ("top-2", "plain", "adamoe"),
    }
    runs = {
        name: [
            run(name, seed, 20 if number == 0 else 25 + seed, 1.0 + number / 7).model_copy(
                update={"epochs": 4.0, "seconds_per_step_by_epoch": [0.5] * 4}
            )
            for seed in range(3)
        ]
        for number, name in enumerate(variants[study])
    }
    lines = learned(compare_variants(study, runs), study)
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines[1:] if line.endswith("not measured")]


def test_a_study_without_claims_has_nothing_to_say() -> None:
    assert learned(make_published(), "gates") == []


def test_claims_about_analyses_and_layers_belong_to_no_study() -> None:
    without = {claim.measure for claim in claims() if study_of(claim) is None}
    assert without == {"excess", "change", "spread", "reversal", "late_minus_early", "clear", "layer_time"}

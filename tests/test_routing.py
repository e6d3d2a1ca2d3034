"""The tape and what is computed from it: recording, losses, complexity vectors, totals."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from repro.moe.gates import adaptive
from repro.moe.routing import (
    LayerRouting,
    Routing,
    RoutingLayer,
    RoutingTape,
    force_top1_routing,
    logit_variance,
    record_routing,
)
from repro.moe.totals import RoutingTotals


def _routing(
    counts: list[int],
    num_experts: int = 3,
    mask: list[bool] | None = None,
    loss: float = 0.0,
    probs_TE: Tensor | None = None,
) -> Routing:
    """A routing in which each token takes as many experts as `counts` says, the lowest first."""
    count_T = torch.tensor(counts)
    selected_TE = torch.arange(num_experts)[None] < count_T[:, None]
    probs_TE = torch.full(selected_TE.shape, 1 / num_experts) if probs_TE is None else probs_TE
    mask_T = count_T > 0 if mask is None else torch.tensor(mask, dtype=torch.bool)
    return Routing.from_selection(selected_TE, probs_TE, probs_TE, mask_T, torch.tensor(loss))


def _entry(layer: int, routing: Routing, shape: tuple[int, int], time_major: bool = False) -> LayerRouting:
    return LayerRouting(
        layer, routing, shape, time_major, rows_computed=routing.load_E.sum(), update_gate=lambda _: None
    )


# --- Routing -----------------------------------------------------------------------------------------


def test_from_selection_lists_assignments_by_expert_then_token() -> None:
    selected_TE = torch.tensor([[True, False, True], [False, False, True], [True, False, False]])
    weights_TE = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])
    mask_T, probs_TE = torch.tensor([True, True, True]), torch.full((3, 3), 1 / 3)
    routing = Routing.from_selection(selected_TE, weights_TE, probs_TE, mask_T, torch.tensor(0.5))
    assert routing.expert_A.tolist() == [0, 0, 2, 2]
    assert routing.token_A.tolist() == [0, 2, 0, 1]
    assert torch.equal(routing.weight_A, weights_TE[[0, 2, 0, 1], [0, 0, 2, 2]])
    assert routing.load_E.tolist() == [2, 0, 2]
    assert routing.count_T.tolist() == [2, 1, 1]
    assert routing.loss.item() == 0.5


def test_from_selection_never_routes_padding() -> None:
    mask_T = torch.tensor([True, False, True])
    routing = Routing.from_selection(
        torch.ones(3, 2, dtype=torch.bool), torch.ones(3, 2), torch.ones(3, 2), mask_T, torch.tensor(0.0)
    )
    assert routing.expert_A.tolist() == [0, 0, 1, 1]
    assert routing.token_A.tolist() == [0, 2, 0, 2]
    assert routing.load_E.tolist() == [2, 2]
    assert routing.count_T.tolist() == [2, 0, 2]


def test_weights_carry_gradient_only_to_real_assignments() -> None:
    weights_TE = torch.ones(3, 2, requires_grad=True)
    selected_TE = torch.tensor([[True, False], [True, True], [False, True]])
    routing = Routing.from_selection(
        selected_TE, weights_TE, torch.ones(3, 2), torch.tensor([True, False, True]), torch.tensor(0.0)
    )
    # Assignments: (expert 0, token 0) and (expert 1, token 2).
    (grad_TE,) = torch.autograd.grad((routing.weight_A * torch.tensor([2.0, 5.0])).sum(), weights_TE)
    assert grad_TE.tolist() == [[2.0, 0.0], [0.0, 0.0], [0.0, 5.0]]


# --- counts and ratios -------------------------------------------------------------------------------

# Two sequences of three positions, batch-first; 0 is padding.
#   sequence 0: 1 2 2      sequence 1: 2 1 0
COUNTS = [1, 2, 2, 2, 1, 0]
# The same time-major: position by position, both sequences side by side.
COUNTS_SB = [1, 2, 2, 1, 2, 0]


def test_counts_have_one_row_per_sequence_in_both_layouts() -> None:
    expected = [[1, 2, 2], [2, 1, 0]]
    assert _entry(0, _routing(COUNTS), (2, 3)).count_BS().tolist() == expected
    assert _entry(0, _routing(COUNTS_SB), (3, 2), time_major=True).count_BS().tolist() == expected


def test_ratios_by_hand() -> None:
    tape = RoutingTape(
        [
            _entry(0, _routing(COUNTS), (2, 3)),
            # sequence 0: three experts count as several, 3/3; sequence 1: no token with several, 0/2.
            _entry(1, _routing([2, 3, 2, 1, 1, 0]), (2, 3)),
        ]
    )
    # Layer 0: sequence 0 has 2 of 3 tokens with two experts, sequence 1 has 1 of 2 real tokens.
    torch.testing.assert_close(tape.ratios_BL(), torch.tensor([[2 / 3, 1.0], [1 / 2, 0.0]]))


def test_ratios_time_major_by_hand() -> None:
    tape = RoutingTape([_entry(0, _routing(COUNTS_SB), (3, 2), time_major=True)])
    torch.testing.assert_close(tape.ratios_BL(), torch.tensor([[2 / 3], [1 / 2]]))


def test_ratios_divide_by_real_tokens_not_by_routed_ones() -> None:
    # A real token without any expert (a null expert) is in the length: 1 of 2, not 1 of 1.
    tape = RoutingTape([_entry(0, _routing([2, 0, 0], mask=[True, True, False]), (1, 3))])
    assert tape.ratios_BL().tolist() == [[0.5]]


def test_a_sequence_without_real_tokens_has_ratio_0() -> None:
    tape = RoutingTape([_entry(0, _routing([0, 0, 2, 1]), (2, 2))])
    assert tape.ratios_BL().tolist() == [[0.0], [0.5]]


def test_ratios_of_stacks_of_different_length() -> None:
    # An encoder layer sees 4 positions, a decoder layer 2, of the same two sequences.
    tape = RoutingTape(
        [
            _entry(0, _routing([2, 1, 1, 1, 2, 2, 0, 0]), (2, 4)),
            _entry(1, _routing([2, 2, 1, 0]), (2, 2)),
        ]
    )
    assert tape.ratios_BL().tolist() == [[0.25, 1.0], [1.0, 0.0]]


def test_tokens_with_several_experts_are_counted_by_layer() -> None:
    # Layer 0 is time-major: sequence 0 has 1 2 2, sequence 1 has 2 1 and padding. Layer 1 batch-first:
    # sequence 0 has 1 1 1 3, sequence 1 has 2 2 and padding.
    tape = RoutingTape(
        [
            _entry(0, _routing(COUNTS_SB), (3, 2), time_major=True),
            _entry(1, _routing([1, 1, 1, 3, 2, 2, 0, 0]), (2, 4)),
        ]
    )
    num_multi_expert_BL = tape.num_multi_expert_BL()
    assert num_multi_expert_BL.tolist() == [[2, 1], [1, 2]]
    assert num_multi_expert_BL.dtype == torch.int64
    torch.testing.assert_close(tape.ratios_BL(), torch.tensor([[2 / 3, 1 / 4], [1 / 2, 1.0]]))


def test_no_token_with_several_experts() -> None:
    tape = RoutingTape([_entry(0, _routing([1, 1, 0, 1]), (2, 2))])
    assert tape.num_multi_expert_BL().tolist() == [[0], [0]]
    assert tape.ratios_BL().tolist() == [[0.0], [0.0]]


def test_loss_is_the_sum_over_layers() -> None:
    tape = RoutingTape(
        [_entry(0, _routing([1], loss=0.25), (1, 1)), _entry(1, _routing([1], loss=0.5), (1, 1))]
    )
    assert float(tape.loss()) == 0.75
    assert RoutingTape().loss() == 0.0


# --- recording ---------------------------------------------------------------------------------------


class _Layer(RoutingLayer):
    """What a MoE layer does around its experts, with one number per expert in their place."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.calls = 0
        self.gate = adaptive.Gate(adaptive.Config(threshold=0.3), 8, 4)
        self.scale_E = nn.Parameter(torch.randn(4))

    def forward(self, hidden: Tensor) -> Tensor:
        self.calls += 1
        x_TD = hidden.flatten(0, 1)
        mask_T = torch.ones(x_TD.shape[0], dtype=torch.bool)
        routing = self.gate(x_TD, mask_T, force_top1=self.force_top1)
        rows_AD = x_TD[routing.token_A] * (routing.weight_A * self.scale_E[routing.expert_A])[:, None]
        y_TD = torch.zeros_like(x_TD).index_add(0, routing.token_A, rows_AD)
        if self.tape is not None:
            shape = (hidden.shape[0], hidden.shape[1])
            self.tape.entries.append(
                LayerRouting(self.layer, routing, shape, False, routing.load_E.sum(), self.gate.update_state)
            )
        return y_TD.view(hidden.shape)


class _Model(nn.Module):
    def __init__(self, checkpointed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([_Layer(0), _Layer(1)])
        self.checkpointed = checkpointed

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            update = checkpoint(layer, hidden, use_reentrant=False) if self.checkpointed else layer(hidden)
            hidden = nn.functional.layer_norm(hidden + update, (8,))
        return hidden


def _hidden() -> Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))


def test_recording_is_scoped() -> None:
    model = _Model()
    model(_hidden())
    with record_routing(model) as tape:
        assert tape.entries == []
        model(_hidden())
        assert [entry.layer for entry in tape.entries] == [0, 1]
        model(_hidden())
    assert [entry.layer for entry in tape.entries] == [0, 1, 0, 1]
    model(_hidden())
    assert len(tape.entries) == 4
    assert all(layer.tape is None for layer in model.layers)


def test_recording_stops_when_the_block_fails() -> None:
    model = _Model()
    with pytest.raises(RuntimeError, match="inside"), record_routing(model):
        raise RuntimeError("inside")
    assert all(layer.tape is None for layer in model.layers)


def test_each_block_has_its_own_tape() -> None:
    model = _Model()
    with record_routing(model) as first:
        model(_hidden())
    with record_routing(model) as second:
        model(_hidden())
    assert len(first.entries) == len(second.entries) == 2
    assert first.entries[0].routing is not second.entries[0].routing


def test_a_model_without_moe_layers_records_nothing() -> None:
    model = nn.Linear(8, 8)
    with record_routing(model) as tape:
        model(_hidden())
    assert tape.entries == []
    assert tape.loss() == 0.0
    assert RoutingTotals.of(tape).summary().mean_experts is None


def _trained_step(checkpointed: bool) -> tuple[_Model, RoutingTape, Tensor, Sequence[Tensor]]:
    """Model, tape, loss, and the gradients of the input and the parameters."""
    model, hidden = _Model(checkpointed), _hidden().requires_grad_()
    with record_routing(model) as tape:
        output = model(hidden)
    loss = output.square().mean() + tape.loss()
    assert len(tape.entries) == 2
    return model, tape, loss, torch.autograd.grad(loss, [hidden, *model.parameters()])


def test_gradient_checkpointing_records_once_and_changes_nothing() -> None:
    plain, plain_tape, plain_loss, plain_grads = _trained_step(checkpointed=False)
    model, tape, loss, grads = _trained_step(checkpointed=True)
    # Backward ran each checkpointed layer once more, and that pass wrote nothing.
    assert [layer.calls for layer in plain.layers] == [1, 1]
    assert [layer.calls for layer in model.layers] == [2, 2]
    assert [entry.layer for entry in tape.entries] == [0, 1]
    for entry, other in zip(tape.entries, plain_tape.entries, strict=True):
        assert torch.equal(entry.routing.count_T, other.routing.count_T)
        assert torch.equal(entry.routing.load_E, other.routing.load_E)
        assert torch.equal(entry.routing.loss, other.routing.loss)
    assert RoutingTotals.of(tape) == RoutingTotals.of(plain_tape)
    assert torch.equal(tape.ratios_BL(), plain_tape.ratios_BL())
    assert torch.equal(loss, plain_loss)
    assert all(torch.equal(grad, plain_grad) for grad, plain_grad in zip(grads, plain_grads, strict=True))


def test_force_top1_routing_is_scoped() -> None:
    model = _Model()
    with record_routing(model) as tape:
        model(_hidden())
        with force_top1_routing(model):
            model(_hidden())
        model(_hidden())
        with force_top1_routing(model, enabled=False):
            model(_hidden())
    num_multi_expert = [int((entry.routing.count_T >= 2).sum()) for entry in tape.entries]
    assert min(num_multi_expert[:2]) > 0
    assert num_multi_expert[2:4] == [0, 0]
    assert num_multi_expert[0:2] == num_multi_expert[4:6] == num_multi_expert[6:8]
    assert not any(layer.force_top1 for layer in model.layers)


# --- totals ------------------------------------------------------------------------------------------


def _two_layer_tape() -> RoutingTape:
    # Layer 0, E = 2: counts 1 2 2 and one padding token. Each routed token takes the lowest experts,
    # so expert 0 gets 3 and expert 1 gets 2. Layer 1: counts 1 1 2 and padding: loads 3 and 1.
    # Probabilities (0.8, 0.2) in layer 0: logits differ by log 4, variance (log 4)^2 / 2 for each of
    # the three tokens. Equal probabilities in layer 1: variance 0. The padding rows are NaN.
    sharp_TE = torch.tensor([[0.8, 0.2], [0.2, 0.8], [0.8, 0.2], [torch.nan, torch.nan]])
    return RoutingTape(
        [
            _entry(0, _routing([1, 2, 2, 0], 2, probs_TE=sharp_TE), (1, 4)),
            _entry(1, _routing([1, 1, 2, 0], 2), (1, 4)),
        ]
    )


LOG_4 = 1.3862943611198906


def test_totals_by_hand() -> None:
    totals = RoutingTotals.of(_two_layer_tape())
    assert totals.count_LK == [[0, 1, 2], [0, 2, 1]]
    assert totals.load_LE == [[3, 2], [3, 1]]
    assert totals.logit_variance_L == pytest.approx([3 * LOG_4**2 / 2, 0.0], rel=1e-5)
    assert totals.tokens_L() == [3, 3]
    assert totals.assignments_L() == [5, 4]


def test_summary_by_hand() -> None:
    summary = RoutingTotals.of(_two_layer_tape()).summary()
    # 9 assignments for 6 token visits.
    assert summary.mean_experts == pytest.approx(1.5)
    assert summary.share_by_count == pytest.approx([0.0, 3 / 6, 3 / 6])
    assert summary.share_by_count_per_layer[0] == pytest.approx([0.0, 1 / 3, 2 / 3])
    assert summary.share_by_count_per_layer[1] == pytest.approx([0.0, 2 / 3, 1 / 3])
    # Loads (3, 2): mean 2.5, deviation 0.5, so 0.2. Loads (3, 1): mean 2, deviation 1, so 0.5.
    assert summary.load_cv_per_layer == pytest.approx([0.2, 0.5])
    assert summary.logit_std_per_layer == pytest.approx([LOG_4 / 2**0.5, 0.0], rel=1e-5)


def test_totals_of_repeated_passes_add_up() -> None:
    tape = _two_layer_tape()
    once, twice = RoutingTotals.of(tape), RoutingTotals.of(RoutingTape(tape.entries * 2))
    assert twice.count_LK == [[0, 2, 4], [0, 4, 2]]
    assert twice.load_LE == [[6, 4], [6, 2]]
    assert twice == once + once
    # Doubling is exact in binary, so shares and spreads are the same numbers.
    assert twice.summary() == once.summary()


def test_adding_pads_counts_that_one_side_never_saw() -> None:
    left = RoutingTotals([[0, 4]], [[3, 1]], [2.0])
    right = RoutingTotals([[1, 0, 2]], [[2, 2]], [0.5])
    assert left + right == RoutingTotals([[1, 4, 2]], [[5, 3]], [2.5])
    assert right + left == left + right
    # Nothing was changed in place.
    assert left == RoutingTotals([[0, 4]], [[3, 1]], [2.0])


def test_adding_nothing_changes_nothing() -> None:
    totals = RoutingTotals.of(_two_layer_tape())
    assert totals + RoutingTotals() == totals
    assert RoutingTotals() + totals == totals
    assert RoutingTotals() + RoutingTotals() == RoutingTotals()


def test_adding_different_numbers_of_layers_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        RoutingTotals([[1]], [[1]], [0.0]) + RoutingTotals([[1], [1]], [[1], [1]], [0.0, 0.0])


def test_layers_with_different_counts_share_one_width() -> None:
    tape = RoutingTape([_entry(0, _routing([1]), (1, 1)), _entry(1, _routing([3]), (1, 1))])
    summary = RoutingTotals.of(tape).summary()
    assert summary.share_by_count_per_layer == [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    assert summary.share_by_count == [0.0, 0.5, 0.0, 0.5]
    assert summary.mean_experts == 2.0


def test_real_tokens_without_experts_are_counted() -> None:
    tape = RoutingTape([_entry(0, _routing([0, 2, 0, 0], mask=[True, True, True, False]), (1, 4))])
    totals = RoutingTotals.of(tape)
    assert totals.count_LK == [[2, 0, 1]]
    assert totals.summary().mean_experts == pytest.approx(2 / 3)


def test_without_tokens_every_share_is_none() -> None:
    tape = RoutingTape([_entry(0, _routing([0, 0]), (1, 2)), _entry(1, _routing([0, 0]), (1, 2))])
    assert RoutingTotals.of(tape).summary().to_json() == {
        "mean_experts": None,
        "share_by_count": None,
        "share_by_count_per_layer": [None, None],
        "load_cv_per_layer": [None, None],
        "logit_std_per_layer": [None, None],
    }


def test_a_layer_that_did_not_run_has_none() -> None:
    # Layer 0 was not in this pass (an encoder, say, when only the decoder ran).
    tape = RoutingTape([_entry(1, _routing([1, 2], 2), (1, 2))])
    summary = RoutingTotals.of(tape).summary()
    assert summary.mean_experts == 1.5
    assert summary.share_by_count_per_layer == [None, [0.0, 0.5, 0.5]]
    # Loads (2, 1): mean 1.5, deviation 0.5.
    assert summary.load_cv_per_layer == [None, pytest.approx(1 / 3)]
    assert summary.logit_std_per_layer == [None, 0.0]


def test_without_layers_there_is_nothing_per_layer() -> None:
    assert RoutingTotals().summary().to_json() == {
        "mean_experts": None,
        "share_by_count": None,
        "share_by_count_per_layer": [],
        "load_cv_per_layer": [],
        "logit_std_per_layer": [],
    }


@pytest.mark.parametrize("spread", [0.23, 1.0, 2.8])
def test_logit_variance_recovers_the_spread(spread: float) -> None:
    # The mean over 4000 tokens of the unbiased variance of 16 draws has a relative standard error of
    # sqrt(2 / 15) / sqrt(4000) = 0.6 %. A shift per token must not matter: softmax does not see it.
    torch.manual_seed(0)
    logits_TE = spread * torch.randn(4000, 16) + 5 * torch.randn(4000, 1)
    variance_T = logit_variance(logits_TE.softmax(1))
    assert variance_T.shape == (4000,)
    assert float(variance_T.mean()) ** 0.5 == pytest.approx(spread, rel=0.02)
    torch.testing.assert_close(variance_T, logits_TE.var(dim=1), rtol=1e-3, atol=1e-5)


def test_logit_variance_at_the_edges() -> None:
    # One expert: no spread. Probabilities that underflowed: large but finite.
    assert logit_variance(torch.ones(3, 1)).tolist() == [0.0, 0.0, 0.0]
    assert bool(logit_variance(torch.tensor([[1.0, 0.0]])).isfinite().all())
    assert logit_variance(torch.ones(0, 4)).shape == (0,)

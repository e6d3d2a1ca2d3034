"""Every expert back-end computes the same sum: values, gradients, edge cases, precision."""

import dataclasses

import pytest
import torch

from repro import plugins
from repro.experts import grouped, loop
from repro.experts._ffn import FFNWeights, activate, activate_backward_into, activate_into, token_bags
from repro.routing import Routing

BACKENDS = plugins.names("experts")
NUM_EXPERTS, D_MODEL, D_HIDDEN = 5, 6, 7

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_activation = pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])

NAMES = ["x", "weight_A", "w1", "b1", "w2", "b2"]


def _routing(selected_TE, dtype=torch.float64, seed=0):
    """A routing with random weights for a choice of experts; nothing but assignments matters here."""
    tokens, num_experts = selected_TE.shape
    generator = torch.Generator().manual_seed(seed)
    weights_TE = torch.rand(tokens, num_experts, generator=generator, dtype=torch.float64).to(dtype)
    mask_T = torch.ones(tokens, dtype=torch.bool)
    return Routing.from_selection(selected_TE, weights_TE, weights_TE, mask_T, torch.zeros(()))


def _random_selection(tokens, seed, num_experts=NUM_EXPERTS):
    """0, 1, 2 or 3 experts for each token, drawn without replacement."""
    generator = torch.Generator().manual_seed(seed)
    rank_TE = torch.rand(tokens, num_experts, generator=generator).argsort(1).argsort(1)
    return rank_TE < torch.randint(0, 4, (tokens, 1), generator=generator)


def _tensors(tokens, seed, dtype=torch.float64, shape=(NUM_EXPERTS, D_MODEL, D_HIDDEN)):
    """The values x, w1, b1, w2, b2."""
    experts, d_model, d_hidden = shape
    generator = torch.Generator().manual_seed(seed)
    shapes = [
        (tokens, d_model),
        (experts, d_hidden, d_model),
        (experts, d_hidden),
        (experts, d_model, d_hidden),
        (experts, d_model),
    ]
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in shapes]


def _forward(function, tensors, routing, activation, grad_y_TD=None):
    """Output, and the gradients of sum(output * grad_y) in the order of `NAMES`."""
    x, w1, b1, w2, b2 = (tensor.clone().requires_grad_() for tensor in tensors)
    weight_A = routing.weight_A.detach().clone().requires_grad_()
    routing = dataclasses.replace(routing, weight_A=weight_A)
    y_TD = function(x, routing, FFNWeights(w1, b1, w2, b2, activation))
    if grad_y_TD is None:
        grad_y_TD = torch.cos(torch.arange(y_TD.numel()).view(y_TD.shape)).to(y_TD.dtype)
    y_TD.backward(grad_y_TD)
    return y_TD.detach(), [tensor.grad for tensor in (x, weight_A, w1, b1, w2, b2)]


def _run(backend, tensors, routing, activation="gelu", grad_y_TD=None):
    return _forward(plugins.load("experts", backend).forward, tensors, routing, activation, grad_y_TD)


def _assert_same(result, reference, rtol, atol):
    torch.testing.assert_close(result[0], reference[0], rtol=rtol, atol=atol)
    for name, grad, expected in zip(NAMES, result[1], reference[1], strict=True):
        assert grad is not None, name
        torch.testing.assert_close(
            grad, expected, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_the_three_back_ends_are_there():
    assert {"grouped", "loop", "padded"} <= set(BACKENDS)


@every_backend
def test_back_ends_run_on_the_cpu(backend):
    assert plugins.load("experts", backend).available(torch.device("cpu")) is None


# --- worked on paper ---------------------------------------------------------------------------------

# D = F = 2, relu, x0 = (1, 2), x1 = (3, -1).
# Expert 0: W1 = I, b1 = (0, -1), W2 = [[1, 1], [2, 0]], b2 = (0.5, 0).
#   x0: pre (1, 1),      hidden (1, 1),   out (1 + 1, 2) + b2 = (2.5, 2)
# Expert 1: W1 = [[1, -1], [-1, 1]], b1 = (0, 0.5), W2 = [[1, 0], [0, 2]], b2 = (0, -1).
#   x0: pre (-1, 1.5),   hidden (0, 1.5), out (0, 3) + b2 = (0, 2)
#   x1: pre (4, -3.5),   hidden (4, 0),   out (4, 0) + b2 = (4, -1)
# x0 goes to expert 0 with weight 0.5 and to expert 1 with 0.25, x1 to expert 1 with 0.5:
#   y0 = 0.5 (2.5, 2) + 0.25 (0, 2) = (1.25, 1.5)      y1 = 0.5 (4, -1) = (2, -0.5)
PAPER = [
    torch.tensor([[1.0, 2.0], [3.0, -1.0]]),
    torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, -1.0], [-1.0, 1.0]]]),
    torch.tensor([[0.0, -1.0], [0.0, 0.5]]),
    torch.tensor([[[1.0, 1.0], [2.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]]]),
    torch.tensor([[0.5, 0.0], [0.0, -1.0]]),
]


def _paper_routing():
    selected_TE = torch.tensor([[True, True], [False, True]])
    weights_TE = torch.tensor([[0.5, 0.25], [0.0, 0.5]])
    mask_T = torch.tensor([True, True])
    return Routing.from_selection(selected_TE, weights_TE, weights_TE, mask_T, torch.zeros(()))


@every_backend
def test_output_by_hand(backend):
    y_TD, _ = _run(backend, PAPER, _paper_routing(), "relu")
    assert y_TD.tolist() == [[1.25, 1.5], [2.0, -0.5]]


@every_backend
def test_gradients_by_hand(backend):
    _, grads = _run(backend, PAPER, _paper_routing(), "relu", grad_y_TD=torch.ones(2, 2))
    expected = {
        # Hidden gradient = weight * W2^T (1, 1), zero where relu is off:
        #   expert 0, x0: 0.5 (3, 1) = (1.5, 0.5), both on
        #   expert 1, x0: 0.25 (1, 2) = (0.25, 0.5), second on: (0, 0.5)
        #   expert 1, x1: 0.5 (1, 2) = (0.5, 1), first on: (0.5, 0)
        # x0: I (1.5, 0.5) + W1^T (0, 0.5) = (1.5, 0.5) + (-0.5, 0.5); x1: W1^T (0.5, 0) = (0.5, -0.5).
        "x": [[1.0, 1.0], [0.5, -0.5]],
        # The sum of each output row: 2.5 + 2, 0 + 2, 4 - 1.
        "weight_A": [4.5, 2.0, 3.0],
        # Outer products of hidden gradient and input, summed over the expert's tokens:
        #   expert 0: (1.5, 0.5) x (1, 2); expert 1: (0, 0.5) x (1, 2) + (0.5, 0) x (3, -1).
        "w1": [[[1.5, 3.0], [0.5, 1.0]], [[1.5, -0.5], [0.5, 1.0]]],
        "b1": [[1.5, 0.5], [0.5, 0.5]],
        # Each row: weight * hidden; expert 0: 0.5 (1, 1); expert 1: 0.25 (0, 1.5) + 0.5 (4, 0).
        "w2": [[[0.5, 0.5], [0.5, 0.5]], [[2.0, 0.375], [2.0, 0.375]]],
        # The sum of weights: expert 0: 0.5; expert 1: 0.25 + 0.5.
        "b2": [[0.5, 0.5], [0.75, 0.75]],
    }
    assert {name: grad.tolist() for name, grad in zip(NAMES, grads, strict=True)} == expected


# --- equal to the reference --------------------------------------------------------------------------


@every_backend
@every_activation
@pytest.mark.parametrize(("tokens", "seed"), [(23, 0), (23, 1), (8, 2), (64, 3)])
def test_values_and_gradients_equal_loop_in_fp64(backend, activation, tokens, seed):
    tensors, routing = _tensors(tokens, seed), _routing(_random_selection(tokens, seed))
    if tokens > 8:
        assert set(routing.count_T.tolist()) == {0, 1, 2, 3}
    result = _run(backend, tensors, routing, activation)
    _assert_same(result, _run("loop", tensors, routing, activation), rtol=1e-10, atol=1e-10)
    # Tokens without an expert: output and gradient are exactly 0.
    idle_T = routing.count_T == 0
    assert result[0][idle_T].abs().sum().item() == 0.0
    assert result[1][0][idle_T].abs().sum().item() == 0.0


@every_activation
def test_loop_equals_the_definition(activation):
    """y_t = sum_e w_te (W2_e act(W1_e x_t + b1_e) + b2_e), all experts for all tokens, weight 0 if unused."""
    tensors, routing = _tensors(20, 4), _routing(_random_selection(20, 4))

    def definition(x_TD, routing, weights):
        weight_TE = torch.zeros(20, NUM_EXPERTS, dtype=x_TD.dtype)
        weight_TE = weight_TE.index_put((routing.token_A, routing.expert_A), routing.weight_A)
        pre_TEF = torch.einsum("td,efd->tef", x_TD, weights.w1_EFD) + weights.b1_EF
        function = {
            "gelu": torch.nn.functional.gelu,
            "gelu_tanh": lambda pre: torch.nn.functional.gelu(pre, approximate="tanh"),
            "relu": torch.relu,
        }[activation]
        out_TED = torch.einsum("tef,edf->ted", function(pre_TEF), weights.w2_EDF) + weights.b2_ED
        return torch.einsum("te,ted->td", weight_TE, out_TED)

    _assert_same(
        _run("loop", tensors, routing, activation),
        _forward(definition, tensors, routing, activation),
        rtol=1e-10,
        atol=1e-10,
    )


@every_backend
@every_activation
def test_gradients_equal_finite_differences(backend, activation):
    forward = plugins.load("experts", backend).forward
    routing = _routing(_random_selection(6, 5, num_experts=3))
    # With this seed no relu input lies within the step of the differences (1e-6) of its kink.
    tensors = [tensor.requires_grad_() for tensor in _tensors(6, 5, shape=(3, 3, 4))]
    weight_A = routing.weight_A.clone().requires_grad_()

    def function(weight_A, x, w1, b1, w2, b2):
        return forward(
            x, dataclasses.replace(routing, weight_A=weight_A), FFNWeights(w1, b1, w2, b2, activation)
        )

    assert torch.autograd.gradcheck(function, (weight_A, *tensors))


@every_activation
def test_activation_backward_equals_autograd(activation):
    pre = torch.linspace(-4, 4, 101, dtype=torch.float64).requires_grad_()
    grad = torch.cos(torch.arange(101.0, dtype=torch.float64))
    value = activate(pre, activation)
    (expected,) = torch.autograd.grad(value, pre, grad)
    activate_backward_into(grad, pre.detach(), activation)
    torch.testing.assert_close(grad, expected)
    written = torch.empty_like(pre)
    activate_into(written, pre.detach(), activation)
    assert torch.equal(written, value)


@every_backend
@pytest.mark.parametrize(
    "needed", [["x"], ["weight_A"], ["w1", "b1", "w2", "b2"]], ids=["x", "weight", "experts"]
)
def test_gradients_of_some_inputs_alone(backend, needed):
    tensors, routing = _tensors(12, 6), _routing(_random_selection(12, 6))
    _, everything = _run("loop", tensors, routing)
    inputs = dict(zip(["x", "w1", "b1", "w2", "b2"], (tensor.clone() for tensor in tensors), strict=True))
    inputs["weight_A"] = routing.weight_A.clone()
    for name in needed:
        inputs[name].requires_grad_()
    y_TD = plugins.load("experts", backend).forward(
        inputs["x"],
        dataclasses.replace(routing, weight_A=inputs["weight_A"]),
        FFNWeights(*(inputs[name] for name in ("w1", "b1", "w2", "b2")), "gelu"),
    )
    y_TD.backward(torch.cos(torch.arange(y_TD.numel()).view(y_TD.shape)).double())
    for name, expected in zip(NAMES, everything, strict=True):
        if name in needed:
            torch.testing.assert_close(inputs[name].grad, expected, rtol=1e-10, atol=1e-10)
        else:
            assert inputs[name].grad is None


# --- edge cases --------------------------------------------------------------------------------------


def _edge(name):
    selected_TE = torch.zeros({"no-tokens": 0, "one-token": 1}.get(name, 9), NUM_EXPERTS, dtype=torch.bool)
    if name == "one-token":
        selected_TE[0, 3] = True
    if name == "one-expert":
        selected_TE[:, 2] = True
    if name == "all-experts":
        selected_TE[:] = True
    if name == "first-and-last":
        selected_TE[0, 0] = selected_TE[8, NUM_EXPERTS - 1] = True
    return selected_TE


EDGES = ["no-tokens", "no-assignments", "one-token", "one-expert", "all-experts", "first-and-last"]


@every_backend
@pytest.mark.parametrize("edge", EDGES)
def test_edge_cases_equal_loop(backend, edge):
    selected_TE = _edge(edge)
    tensors, routing = _tensors(selected_TE.shape[0], 7), _routing(selected_TE)
    result = _run(backend, tensors, routing)
    _assert_same(result, _run("loop", tensors, routing), rtol=1e-10, atol=1e-10)
    if routing.expert_A.numel() == 0:
        assert result[0].abs().sum().item() == 0.0
        assert all(grad.abs().sum().item() == 0.0 for grad in result[1])


@every_backend
def test_one_expert_in_the_layer(backend):
    tensors = _tensors(9, 8, shape=(1, D_MODEL, D_HIDDEN))
    routing = _routing(torch.ones(9, 1, dtype=torch.bool))
    _assert_same(_run(backend, tensors, routing), _run("loop", tensors, routing), rtol=1e-10, atol=1e-10)


@every_backend
def test_idle_experts_get_zero_gradients(backend):
    selected_TE = _random_selection(20, 9)
    selected_TE[:, [0, 3]] = False
    _, (_, _, *expert_grads) = _run(backend, _tensors(20, 9), _routing(selected_TE))
    for name, grad in zip(NAMES[2:], expert_grads, strict=True):
        assert grad is not None, name
        assert torch.equal(grad[[0, 3]], torch.zeros_like(grad[[0, 3]])), name
        assert all(grad[expert].abs().sum().item() > 0 for expert in (1, 2, 4)), name


@every_backend
def test_nan_in_an_unused_expert_does_not_leak(backend):
    selected_TE = _random_selection(20, 10)
    selected_TE[:, 1] = False
    tensors, routing = _tensors(20, 10), _routing(selected_TE)
    expected_y_TD, expected = _run("loop", tensors, routing)
    for tensor in tensors[1:]:
        tensor[1] = torch.nan
    y_TD, grads = _run(backend, tensors, routing)
    if backend == "padded":
        # It multiplies the unused expert's weights too, with the zero gradients of its empty slots, and
        # 0 * NaN is NaN: that expert's own gradient is left out here. Nothing else may see the NaN.
        for grad in grads[2:]:
            grad[1] = 0.0
    _assert_same((y_TD, grads), (expected_y_TD, expected), rtol=1e-10, atol=1e-10)


@every_backend
def test_nan_in_a_token_without_experts_does_not_leak(backend):
    selected_TE = _random_selection(20, 11)
    selected_TE[4] = False
    tensors, routing = _tensors(20, 11), _routing(selected_TE)
    expected = _run("loop", tensors, routing)
    tensors[0][4] = torch.nan
    _assert_same(_run(backend, tensors, routing), expected, rtol=1e-10, atol=1e-10)


@every_backend
def test_inputs_are_left_alone(backend):
    tensors, routing = _tensors(20, 12), _routing(_random_selection(20, 12))
    copies = [tensor.clone() for tensor in tensors]
    grad_y_TD = torch.ones(20, D_MODEL, dtype=torch.float64)
    _run(backend, tensors, routing, grad_y_TD=grad_y_TD)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies, strict=True))
    assert torch.equal(grad_y_TD, torch.ones(20, D_MODEL, dtype=torch.float64))


@every_backend
def test_non_contiguous_inputs_and_gradients(backend):
    tensors, routing = _tensors(20, 13), _routing(_random_selection(20, 13))
    reference = _run("loop", tensors, routing, grad_y_TD=torch.ones(20, D_MODEL, dtype=torch.float64))
    strided = [tensor.mT.contiguous().mT for tensor in tensors[:2]] + tensors[2:]
    # The gradient of a sum is one number expanded to every place.
    ones_TD = torch.ones((), dtype=torch.float64).expand(20, D_MODEL)
    _assert_same(_run(backend, strided, routing, grad_y_TD=ones_TD), reference, rtol=1e-10, atol=1e-10)


# --- precision and determinism -----------------------------------------------------------------------


@every_backend
@every_activation
def test_fp32_is_close_to_fp64(backend, activation):
    selected_TE = _random_selection(64, 14)
    exact = _run("loop", _tensors(64, 14), _routing(selected_TE), activation)
    single = _run(backend, _tensors(64, 14, torch.float32), _routing(selected_TE, torch.float32), activation)
    assert all(tensor.dtype == torch.float32 for tensor in (single[0], *single[1]))
    exact = (exact[0].float(), [grad.float() for grad in exact[1]])
    _assert_same(single, exact, rtol=1e-4, atol=2e-5)


def _far_from_kink(tensors, activation):
    """For relu, biases that decide the sign: rounding must not switch a unit on or off."""
    x_TD, w1_EFD, b1_EF, w2_EDF, b2_ED = tensors
    return [x_TD, w1_EFD, 16 * b1_EF.sign() if activation == "relu" else b1_EF, w2_EDF, b2_ED]


def _assert_bf16_close(result, reference):
    """bf16 keeps 8 bits: one rounding is off by at most 2^-9 = 0.2 %, and a handful of them add up."""
    for name, tensor, expected in zip(
        ["y", *NAMES], [result[0], *result[1]], [reference[0], *reference[1]], strict=True
    ):
        assert tensor.dtype == torch.float32, name
        error = float((tensor - expected).norm() / expected.norm())
        assert error < 0.015, (name, error)
    # An output without rounding errors was not computed in bf16 at all.
    assert float((result[0] - reference[0]).norm() / reference[0].norm()) > 1e-4


@every_backend
@every_activation
def test_bf16_autocast_is_close_to_fp32(backend, activation):
    tensors = _far_from_kink(_tensors(64, 15, torch.float32), activation)
    routing = _routing(_random_selection(64, 15), torch.float32)
    reference = _run("loop", tensors, routing, activation)

    def forward(x_TD, routing, weights):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return plugins.load("experts", backend).forward(x_TD, routing, weights)

    _assert_bf16_close(_forward(forward, tensors, routing, activation), reference)


@every_backend
def test_two_runs_are_bit_identical(backend):
    tensors = _tensors(300, 16, torch.float32, shape=(16, 32, 64))
    routing = _routing(_random_selection(300, 16, num_experts=16), torch.float32)
    first, second = (_run(backend, tensors, routing) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(left, right) for left, right in zip(first[1], second[1], strict=True))


# --- helpers and accounting --------------------------------------------------------------------------


def test_token_bags_by_hand():
    # Token 0 has experts 0 and 2, token 1 none, token 2 expert 0, token 3 experts 0, 1 and 2.
    selected_TE = torch.tensor(
        [[True, False, True], [False, False, False], [True, False, False], [True, True, True]]
    )
    # Assignments (expert, token): 0:(0,0) 1:(0,2) 2:(0,3) 3:(1,3) 4:(2,0) 5:(2,3).
    # By token: token 0 has 0 and 4, token 2 has 1, token 3 has 2, 3 and 5.
    order_A, starts_T = token_bags(_routing(selected_TE))
    assert order_A.tolist() == [0, 4, 1, 2, 3, 5]
    assert starts_T.tolist() == [0, 2, 2, 3]


CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("backend", "load", "rows"),
    [
        # Without padding: the sum of the loads.
        ("loop", [3, 0, 5, 1], 9),
        ("grouped", [3, 0, 5, 1], 9),
        # Four experts with room for five rows each.
        ("padded", [3, 0, 5, 1], 20),
        ("loop", [0, 0], 0),
        ("grouped", [0, 0], 0),
        ("padded", [0, 0], 0),
        # An even load wastes nothing.
        ("padded", [4, 4, 4], 12),
        ("loop", [], 0),
        ("grouped", [], 0),
        ("padded", [], 0),
    ],
)
def test_rows_computed_by_hand(backend, load, rows):
    assert plugins.load("experts", backend).rows_computed(load, CPU, torch.float32) == rows


def test_rows_computed_by_grouped_in_bf16_by_hand():
    # Multiples of 16 on the CPU, nothing for idle experts; a GPU's product takes groups of any size.
    assert grouped.rows_computed([3, 0, 16, 17], CPU, torch.bfloat16) == 16 + 0 + 16 + 32
    assert grouped.rows_computed([0, 0], CPU, torch.bfloat16) == 0
    assert grouped.rows_computed([3, 0, 16, 17], GPU, torch.bfloat16) == 36


@every_backend
def test_rows_computed_covers_every_assignment(backend):
    routing = _routing(_random_selection(50, 17))
    load = routing.load_E.tolist()
    for dtype in (torch.float32, torch.bfloat16):
        rows = plugins.load("experts", backend).rows_computed(load, CPU, dtype)
        assert rows >= routing.expert_A.numel() == sum(load)


# --- the grouped product, which GPUs use in bf16 -----------------------------------------------------


def _grouped_product(x_TD, routing, weights):
    order_A, starts_T = token_bags(routing)
    return grouped._grouped_mm(x_TD, routing, weights, order_A, starts_T)


@every_activation
def test_grouped_product_equals_loop_in_fp32(activation):
    tensors = _tensors(64, 18, torch.float32, shape=(6, 16, 32))
    selected_TE = _random_selection(64, 18, num_experts=6)
    selected_TE[:, 2] = False
    routing = _routing(selected_TE, torch.float32)
    result = _forward(_grouped_product, tensors, routing, activation)
    _assert_same(result, _forward(loop.forward, tensors, routing, activation), rtol=1e-4, atol=1e-4)
    assert all(grad[2].abs().sum().item() == 0.0 for grad in result[1][2:])


@every_activation
def test_grouped_product_is_close_to_loop_in_bf16(activation):
    tensors = _far_from_kink(_tensors(64, 19, torch.float32, shape=(6, 16, 32)), activation)
    selected_TE = _random_selection(64, 19, num_experts=6)
    selected_TE[:, 2] = False
    routing = _routing(selected_TE, torch.float32)
    reference = _forward(loop.forward, tensors, routing, activation)

    def product(x_TD, routing, weights):
        y_TD = _grouped_product(x_TD.bfloat16(), routing, weights)
        assert y_TD.dtype == torch.bfloat16
        return y_TD.float()

    result = _forward(product, tensors, routing, activation)
    _assert_bf16_close(result, reference)
    assert all(grad[2].abs().sum().item() == 0.0 for grad in result[1][2:])


def test_grouped_product_does_not_leak_nan_of_an_unused_expert():
    tensors = _tensors(64, 21, torch.float32, shape=(6, 16, 32))
    selected_TE = _random_selection(64, 21, num_experts=6)
    selected_TE[:, 2] = False
    routing = _routing(selected_TE, torch.float32)
    expected = _forward(loop.forward, tensors, routing, "gelu")
    for tensor in tensors[1:]:
        tensor[2] = torch.nan
    _assert_same(_forward(_grouped_product, tensors, routing, "gelu"), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("edge", EDGES)
def test_grouped_product_edge_cases(edge):
    selected_TE = _edge(edge)
    tensors = _tensors(selected_TE.shape[0], 20, torch.float32, shape=(NUM_EXPERTS, 16, 32))
    routing = _routing(selected_TE, torch.float32)
    result = _forward(_grouped_product, tensors, routing, "gelu")
    _assert_same(result, _forward(loop.forward, tensors, routing, "gelu"), rtol=1e-4, atol=1e-4)

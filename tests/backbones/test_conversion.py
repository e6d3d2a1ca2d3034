"""Conversion of every backbone and head: identity, weights, masks, checkpointing, saving and loading."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from repro import moe, plugins, saved
from repro.errors import UserError
from repro.routing import record_routing

CPU = torch.device("cpu")
BACKENDS = [name for name in plugins.names("experts") if plugins.load("experts", name).available(CPU) is None]
ONE_COPY = {"count": 1, "init": "upcycle"}


def moe_layers(model: Any) -> list[moe.MoELayer]:
    return [module for module in model.modules() if isinstance(module, moe.MoELayer)]


def sites_of(tiny: Any, model: Any) -> list[Any]:
    return list(plugins.load("backbones", tiny.backbone).ffn_sites(model))


# --- identity: one expert, weight 1, copied FFN -------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_one_upcycled_expert_is_the_original_model_exactly(tiny: Any, masked: bool) -> None:
    # GPT-2's own activation is a chain of Python operations in transformers, one fused function in
    # the experts: they differ in the last bit. ReLU does not round.
    sizes = {"activation_function": "relu"} if tiny.backbone == "gpt2" else {}
    batch = tiny.batch(masked=masked)
    expected = tiny.outputs(tiny.build(**sizes), batch)
    model = tiny.converted("top-1", sizes=sizes, experts=ONE_COPY)
    assert len(moe_layers(model)) == len(tiny.stacks)
    for before, after in zip(expected, tiny.outputs(model, batch), strict=True):
        assert before.std() > 0.1
        assert torch.equal(after, before)


def test_gpt2_with_its_own_activation_is_the_same_up_to_rounding(gpt2: Any) -> None:
    assert gpt2.build().config.activation_function == "gelu_new"
    batch = gpt2.batch()
    expected = gpt2.outputs(gpt2.build().double(), batch)
    model = gpt2.converted("top-1", experts=ONE_COPY).double()
    torch.testing.assert_close(gpt2.outputs(model, batch), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_identity_holds_for_every_back_end(tiny: Any, backend: str) -> None:
    expected = tiny.outputs(tiny.build(), tiny.batch())
    model = tiny.converted("top-1", experts=ONE_COPY | {"backend": backend})
    torch.testing.assert_close(tiny.outputs(model, tiny.batch()), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("gate", ["top-2", "adaptive"])
def test_identity_of_many_equal_experts_with_renormalised_weights(tiny: Any, gate: str) -> None:
    # Copies of one FFN, weights that sum to 1: w1 FFN(x) + w2 FFN(x) = FFN(x), up to rounding.
    expected = tiny.outputs(tiny.build(), tiny.batch())
    model = tiny.converted(gate, experts={"init": "upcycle"}, combine="renormalised")
    torch.testing.assert_close(tiny.outputs(model, tiny.batch()), expected, rtol=0, atol=5e-5)


# --- weights ------------------------------------------------------------------------------------


def test_sites_and_expert_shapes_follow_the_stacks(tiny: Any) -> None:
    model = tiny.build()
    widths = [tiny.widths[stack] for stack in tiny.stacks]
    sites = sites_of(tiny, model)
    assert [site.stack for site in sites] == tiny.stacks
    for site, width in zip(sites, widths, strict=True):
        shapes = [tuple(part.shape) for part in (site.w1_FD, site.b1_F, site.w2_DF, site.b2_D)]
        assert shapes == [(width, 16), (width,), (16, width), (16,)]
    architecture = tiny.convert(model, "top-2", experts={"count": 3})
    layers = moe_layers(model)
    assert [layer.layer for layer in layers] == list(range(len(widths)))
    for layer, width in zip(layers, widths, strict=True):
        found = layer.experts
        shapes = [tuple(part.shape) for part in (found.w1, found.b1, found.w2, found.b2)]
        assert shapes == [(3, width, 16), (3, width), (3, 16, width), (3, 16)]
    found = [(ffn.stack, ffn.d_model, ffn.d_hidden, ffn.converted) for ffn in architecture.ffns]
    assert found == [(stack, 16, tiny.widths[stack], True) for stack in tiny.stacks]


def test_the_norm_of_a_site_is_what_its_network_reads(tiny: Any) -> None:
    model = tiny.build()
    norms = [site.norm for site in sites_of(tiny, model)]
    read, given = [], []
    for norm in norms:
        norm.register_forward_hook(lambda _, args, output: given.append(output))
    tiny.convert(model, "top-2")
    for layer in moe_layers(model):
        layer.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    tiny.outputs(model, tiny.batch())
    assert len(read) == len(given) == len(norms)
    for hidden, output in zip(read, given, strict=True):
        assert torch.equal(hidden, output)


@pytest.mark.parametrize("gate", ["top-2", "adaptive", "adamoe"])
def test_routers_are_fitted_to_the_norm_before_them(tiny: Any, gate: str) -> None:
    def routers(gain: float, bias: float) -> list[torch.Tensor]:
        model = tiny.build()
        for site in sites_of(tiny, model):
            torch.nn.init.constant_(site.norm.weight, gain)
            torch.nn.init.constant_(site.norm.bias, bias)
        tiny.convert(model, gate)
        return [layer.gate.router.weight for layer in moe_layers(model)]

    fresh = routers(1.0, 0.0)
    assert [weight.shape[1] for weight in fresh] == [16] * len(tiny.stacks)
    # N(0, 1 / 16): at least 4 * 16 draws a layer, standard error 0.25 / sqrt(128) = 0.022.
    assert all(weight.std().item() == pytest.approx(0.25, abs=0.08) for weight in fresh)
    # 0.3^2 + 0.4^2 = 0.5^2: inputs half as large, weights twice.
    for fitted, weight in zip(routers(0.3, 0.4), fresh, strict=True):
        torch.testing.assert_close(fitted, 2 * weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("gate", ["top-1", "top-2", "adaptive"])
def test_upcycled_layers_behind_small_norms_start_at_the_scale_of_the_dense_ones(
    tiny: Any, gate: str
) -> None:
    model = tiny.build()
    sites = sites_of(tiny, model)
    for site in sites:
        torch.nn.init.normal_(site.norm.weight, 0.5, 0.1)
    tiny.convert(model, gate, experts={"init": "upcycle", "count": 16})
    for site, layer in zip(sites, moe_layers(model), strict=True):
        x_TD = site.norm(torch.randn(8192, 16, generator=torch.Generator().manual_seed(4))).detach()
        with record_routing(layer) as tape, torch.no_grad():
            layer(x_TD.view(64, 128, 16))
        weights = tape.entries[0].routing.weight_A
        # w2 is divided by the mean total: what is left of it over all tokens is the scale.
        divided = (site.w2_DF / layer.experts.w2[0]).median().detach()
        # Tokens of 16 entries with |x|^2 = 16 exactly have slightly flatter probabilities than Gaussian ones.
        assert float(weights.sum() / 8192 / divided) == pytest.approx(1.0, abs=0.05)


def test_upcycled_experts_are_copies(tiny: Any) -> None:
    sites = sites_of(tiny, tiny.build())
    model = tiny.converted("top-2", experts={"init": "upcycle"}, combine="renormalised")
    for site, layer in zip(sites, moe_layers(model), strict=True):
        for expert in range(4):
            assert torch.equal(layer.experts.w1[expert], site.w1_FD)
            assert torch.equal(layer.experts.b1[expert], site.b1_F)
            torch.testing.assert_close(layer.experts.w2[expert], site.w2_DF, rtol=1e-6, atol=0)
            torch.testing.assert_close(layer.experts.b2[expert], site.b2_D, rtol=1e-6, atol=0)


def test_random_experts_have_the_models_spread_and_zero_biases(tiny: Any) -> None:
    std = plugins.load("backbones", tiny.backbone).INIT_STD
    model = tiny.converted("top-2", sizes={std: 0.05}, experts={"count": 8, "init": "random"})
    for layer in moe_layers(model):
        for weight in (layer.experts.w1, layer.experts.w2):
            # At least 8 * 16 * 24 = 3072 draws: the standard error of their std is
            # 0.05 / sqrt(2 * 3072) = 0.0006, that of their mean 0.05 / sqrt(3072) = 0.0009.
            assert weight.std().item() == pytest.approx(0.05, abs=0.003)
            assert weight.mean().item() == pytest.approx(0.0, abs=0.0045)
            assert not torch.equal(weight[0], weight[1])
        assert torch.count_nonzero(layer.experts.b1) == 0
        assert torch.count_nonzero(layer.experts.b2) == 0


def test_nothing_of_the_dense_ffns_is_left(tiny: Any) -> None:
    dense = sum(parameter.numel() for parameter in tiny.build().parameters())
    found = sum(parameter.numel() for parameter in tiny.converted("top-2").parameters())
    # An FFN of width F has 2 * 16 F + F + 16 parameters; three more of them, and a 4 x 16 router.
    extra = [3 * (33 * tiny.widths[stack] + 16) + 64 for stack in tiny.stacks]
    assert found == dense + sum(extra)


def test_every_parameter_of_a_converted_model_is_trained(tiny: Any) -> None:
    model = tiny.converted("top-2").train()
    with record_routing(model) as tape:
        outputs = model(**tiny.batch())
    logits = [value for name, value in outputs.items() if name.endswith("logits")]
    (sum(value.square().mean() for value in logits) + tape.loss()).backward()
    trained = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    assert [name for name, one in trained if one.grad is None] == []
    for layer in moe_layers(model):
        assert layer.gate.router.weight.grad.abs().max() > 0
        assert layer.experts.w1.grad.abs().max() > 0
        assert layer.experts.b2.grad.abs().max() > 0


# --- masks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["top-1", "top-2", "adaptive"])
def test_padding_is_never_routed(tiny: Any, gate: str) -> None:
    model, batch = tiny.converted(gate), tiny.batch()
    masks = tiny.masks(batch)
    with record_routing(model) as tape:
        tiny.outputs(model, batch)
    assert [entry.layer for entry in tape.entries] == list(range(len(tiny.stacks)))
    for entry, stack in zip(tape.entries, tiny.stacks, strict=True):
        mask_BS, routing = masks[stack], entry.routing
        count_BS = entry.count_BS()
        assert count_BS.shape == mask_BS.shape
        assert (count_BS[mask_BS == 0] == 0).all()
        assert (count_BS[mask_BS == 1] >= 1).all()
        # FSMT is time-major inside its layers: position by position, all sequences side by side.
        assert entry.time_major is (tiny.backbone == "fsmt")
        laid_out = mask_BS.t() if entry.time_major else mask_BS
        assert entry.shape == tuple(laid_out.shape)
        assert torch.equal(routing.mask_T, laid_out.flatten().bool())
        assert routing.mask_T[routing.token_A].all()
        assert routing.load_E.sum() == routing.expert_A.numel() == count_BS.sum()
        if gate != "adaptive":
            experts = {"top-1": 1, "top-2": 2}[gate]
            assert count_BS.sum(1).tolist() == [experts * int(length) for length in mask_BS.sum(1)]


def test_ratios_are_shares_of_the_stacks_own_tokens(tiny: Any) -> None:
    model, batch = tiny.converted("adaptive", threshold=0.4), tiny.batch()
    with record_routing(model) as tape:
        tiny.outputs(model, batch)
    ratios_BL, masks = tape.ratios_BL(), tiny.masks(batch)
    assert ratios_BL.shape == (3, len(tiny.stacks))
    for column, (entry, stack) in enumerate(zip(tape.entries, tiny.stacks, strict=True)):
        several_B = (entry.count_BS() == 2).sum(1)
        assert torch.equal(tape.several_BL()[:, column], several_B)
        torch.testing.assert_close(ratios_BL[:, column], several_B / masks[stack].sum(1))
    assert 0 < float(ratios_BL.mean()) < 1


@pytest.mark.parametrize("gate", ["top-2", "adaptive"])
def test_a_sequence_gives_the_same_alone_and_in_a_padded_batch(tiny: Any, gate: str) -> None:
    model, batch = tiny.converted(gate), tiny.batch()
    with record_routing(model) as tape:
        together = tiny.outputs(model, batch)
    lengths = list(tiny.masks(batch).values())[-1].sum(1).tolist() if tiny.per_token else [1] * 3
    for row in range(3):
        with record_routing(model) as alone_tape:
            alone = tiny.outputs(model, tiny.row(batch, row))
        for logits, logits_alone in zip(together, alone, strict=True):
            mine = logits.split(lengths)[row]
            torch.testing.assert_close(mine, logits_alone, rtol=0, atol=1e-5)
        for entry, entry_alone in zip(tape.entries, alone_tape.entries, strict=True):
            count_1S = entry_alone.count_BS()
            assert torch.equal(entry.count_BS()[row, : count_1S.shape[1]], count_1S[0])


def test_what_stands_at_the_padding_changes_nothing(tiny: Any) -> None:
    model, batch = tiny.converted("adaptive"), tiny.batch()
    other = dict(batch)
    for name in [name for name in batch if name.endswith("input_ids")]:
        mask = batch[name.replace("input_ids", "attention_mask")].bool()
        other[name] = torch.where(mask, batch[name], 41)
        assert not torch.equal(other[name], batch[name])
    with record_routing(model) as tape:
        expected = tiny.outputs(model, batch)
    with record_routing(model) as other_tape:
        found = tiny.outputs(model, other)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert float(tape.loss()) == pytest.approx(float(other_tape.loss()), abs=1e-7)
    assert torch.equal(tape.ratios_BL(), other_tape.ratios_BL())


def test_no_mask_means_that_all_tokens_are_real(tiny: Any) -> None:
    model = tiny.converted("top-2")
    tiny.outputs(model, tiny.batch())  # must not be remembered
    batch = tiny.batch(masked=False)
    with record_routing(model) as tape:
        found = tiny.outputs(model, batch)
    assert all((entry.count_BS() == 2).all() for entry in tape.entries)
    ones = {
        name.replace("input_ids", "attention_mask"): torch.ones_like(ids)
        for name, ids in batch.items()
        if name.endswith("input_ids")
    }
    torch.testing.assert_close(tiny.outputs(model, batch | ones), found, rtol=0, atol=1e-6)


# --- dropout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_layerdrop_is_the_users_error(seq2seq: Any, stack: str) -> None:
    model = seq2seq.build(**{f"{stack}_layerdrop": 0.1})
    with pytest.raises(UserError, match=rf"^model\.config\.{stack}_layerdrop: must be 0 for a model"):
        seq2seq.convert(model, "top-2")


def test_no_activation_dropout_behind_moe_layers(seq2seq: Any) -> None:
    # It belongs between the two matrices; behind a whole MoE layer it would drop parts of its output.
    sizes, batch = {"activation_dropout": 0.5}, seq2seq.batch()
    model = seq2seq.converted("top-2", sizes=sizes)
    expected = seq2seq.outputs(model, batch)
    assert all(
        torch.equal(a, b) for a, b in zip(seq2seq.outputs(model.train(), batch), expected, strict=True)
    )
    for layer in [*model.model.encoder.layers, *model.model.decoder.layers]:
        assert isinstance(layer.fc1, moe.MoELayer)
        assert (layer.activation_dropout, layer.training) == (0.0, True)
    # The dense model does drop them: the setting had an effect.
    dense = seq2seq.build(**sizes)
    expected = seq2seq.outputs(dense, batch)
    assert not torch.equal(seq2seq.outputs(dense.train(), batch)[0], expected[0])


def test_unconverted_layers_keep_their_activation_dropout(seq2seq: Any) -> None:
    model = seq2seq.converted("top-2", sizes={"activation_dropout": 0.5}, experts={"every": 2})
    first, second = model.model.encoder.layers
    assert (first.activation_dropout, second.activation_dropout) == (0.5, 0.0)


def test_dropout_behind_the_ffn_stays(tiny: Any) -> None:
    name = {"bert": "hidden_dropout_prob", "gpt2": "resid_pdrop"}.get(tiny.backbone, "dropout")
    model, batch = tiny.converted("top-2", sizes={name: 0.5}), tiny.batch()
    seen: list[bool] = []
    module = moe_layers(model)[-1]
    module.register_forward_hook(lambda *_: seen.append(True))
    expected = tiny.outputs(model, batch)
    assert not torch.equal(tiny.outputs(model.train(), batch)[0], expected[0])
    assert len(seen) == 2


# --- gradient checkpointing ---------------------------------------------------------------------


def test_gradient_checkpointing_changes_neither_loss_nor_counts_nor_gradients(tiny: Any) -> None:
    if not tiny.build().supports_gradient_checkpointing:
        assert tiny.backbone == "fsmt"
        pytest.skip("transformers has none for FSMT")

    def one_pass(checkpointing: bool) -> tuple[Any, Any, dict[str, torch.Tensor], int]:
        model, calls = tiny.converted("adaptive", balance=0.5), []
        if checkpointing:
            # Its name from transformers 5.23 on, and before.
            new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
            getattr(model, new if hasattr(model, new) else old)({"use_reentrant": False})
        model.train()
        for layer in moe_layers(model):
            # Before: the repetition stops as soon as it has what it needs.
            layer.register_forward_pre_hook(lambda *_: calls.append(1))
        with record_routing(model) as tape:
            outputs = model(**tiny.batch())
        logits = [value for name, value in outputs.items() if name.endswith("logits")]
        loss = sum(value.square().mean() for value in logits) + tape.loss()
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        return loss.detach(), tape, gradients, len(calls)

    loss, tape, gradients, calls = one_pass(False)
    loss_c, tape_c, gradients_c, calls_c = one_pass(True)
    # Checkpointing was on: every layer ran twice. The tape saw the first pass only.
    layers = len(tiny.stacks)
    assert (calls, calls_c) == (layers, 2 * layers)
    assert len(tape.entries) == len(tape_c.entries) == layers
    for entry, entry_c in zip(tape.entries, tape_c.entries, strict=True):
        assert torch.equal(entry.routing.load_E, entry_c.routing.load_E)
        assert torch.equal(entry.routing.count_T, entry_c.routing.count_T)
    assert torch.equal(loss, loss_c)
    for name, gradient in gradients.items():
        assert torch.equal(gradient, gradients_c[name]), name


# --- save and load ------------------------------------------------------------------------------


def assert_loads_as(tiny: Any, model: Any, folder: Path) -> Any:
    saved.save(model, folder)
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    loaded = saved.load(folder, CPU)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert len(moe_layers(loaded)) == len(moe_layers(model))
    for masked in (False, True):
        batch = tiny.batch(masked=masked)
        pairs = zip(tiny.outputs(loaded, batch), tiny.outputs(model, batch), strict=True)
        assert all(torch.equal(after, before) for after, before in pairs)
    return loaded


@pytest.mark.parametrize("gate", ["top-2", "adaptive", "dense"])
def test_a_loaded_model_gives_the_same_output_exactly(tmp_path: Path, tiny: Any, gate: str) -> None:
    assert_loads_as(tiny, tiny.converted(gate), tmp_path)


def test_layers_and_activation_survive_saving(tmp_path: Path, tiny: Any) -> None:
    model = tiny.converted("top-2", experts={"every": 2, "activation": "relu"})
    assert len(moe_layers(model)) == len(tiny.stacks) // 2
    assert_loads_as(tiny, model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["repro_moe"]["experts"] == {"count": 4, "activation": "relu", "every": 2}
    assert (config["repro_moe"]["backbone"], config["repro_moe"]["head"]) == (tiny.backbone, tiny.head)


def test_weights_in_several_files(tmp_path: Path, tiny: Any) -> None:
    model = tiny.converted("adaptive")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    found = tiny.outputs(saved.load(tmp_path, CPU), tiny.batch())
    expected = tiny.outputs(model, tiny.batch())
    assert all(torch.equal(after, before) for after, before in zip(found, expected, strict=True))


def test_settings_of_generation_survive_saving(tmp_path: Path, seq2seq: Any) -> None:
    model = seq2seq.converted("adaptive")
    model.generation_config.no_repeat_ngram_size = 3
    saved.save(model, tmp_path)
    loaded = saved.load(tmp_path, CPU)
    assert loaded.generation_config.to_dict() == model.generation_config.to_dict()


def test_settings_of_generation_of_a_dense_model_survive_saving(tmp_path: Path, seq2seq: Any) -> None:
    model = seq2seq.converted("dense")
    model.generation_config.no_repeat_ngram_size = 3
    saved.save(model, tmp_path)
    assert saved.load(tmp_path, CPU).generation_config.no_repeat_ngram_size == 3


def test_sinusoidal_positions_are_never_trained(gpt2: Any) -> None:
    # transformers 5 registers them as trainable weights.
    model = type(gpt2)("fsmt", "sequence-to-sequence").converted("top-2")
    fixed = {id(parameter) for parameter in plugins.load("backbones", "fsmt").fixed_parameters(model)}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in fixed}
    assert names == {f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")}


TIED = {
    "gpt2": [("lm_head.weight", "transformer.wte.weight")],
    "bart": [
        ("lm_head.weight", "model.shared.weight"),
        ("model.encoder.embed_tokens.weight", "model.shared.weight"),
        ("model.decoder.embed_tokens.weight", "model.shared.weight"),
    ],
    "fsmt": [
        ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
        ("model.decoder.output_projection.weight", "model.decoder.embed_tokens.weight"),
    ],
}


@pytest.mark.parametrize("gate", ["adaptive", "dense"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", sorted(TIED))
def test_tied_weights_stay_tied(tmp_path: Path, gpt2: Any, name: str, tied: bool, gate: str) -> None:
    tiny = type(gpt2)(name, next(iter(plugins.load("backbones", name).HEADS)))
    sizes: dict[str, Any] = {"tie_word_embeddings": tied}
    if name == "fsmt" and tied:
        sizes["tgt_vocab_size"] = 50
    model = tiny.converted(gate, sizes=sizes)
    loaded = assert_loads_as(tiny, model, tmp_path)
    for one, other in TIED[name]:
        for each in (model, loaded):
            assert (each.get_parameter(one) is each.get_parameter(other)) is tied, (one, other)
    # A step on a tied weight moves both of its uses.
    names = {key for key, _ in loaded.named_parameters()}
    assert names == {key for key, _ in model.named_parameters()}

"""What other programs call: `repro.convert`, `load`, `record_routing`, `flops`; gates under a `Trainer`."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from command_line import TrainedRuns
from tiny_models import CPU, Tiny, moe_layers

import repro
import repro.hf
from repro.errors import UserError
from repro.moe import models, pretrained
from repro.moe.flops import Work
from repro.moe.gates.ratio import Gate as RatioGate
from repro.results.run import Flops

BERT = Tiny("bert", "sequence-classification")
GPT2 = Tiny("gpt2", "causal-language-model")
FSMT = Tiny("fsmt", "sequence-to-sequence")


# --- convert --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tiny", [BERT, GPT2, FSMT], ids=lambda tiny: tiny.backbone)
def test_copies_that_share_a_weight_of_one_change_nothing(tiny: Tiny) -> None:
    """With weights that sum to 1, a token's experts together are the network they were copied from."""
    dense, batch = tiny.build(), tiny.batch()
    model = repro.convert(copy.deepcopy(dense), "top-2", experts=4, combine="renormalised")
    assert type(model) is models.model_class(tiny.backbone, tiny.head)
    assert len(moe_layers(model)) == len(tiny.stacks)
    assert not any(layer.training for layer in moe_layers(model))
    for after, before in zip(tiny.outputs(model, batch), tiny.outputs(dense, batch), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-4)


def test_the_defaults_are_those_of_the_paper_with_copies() -> None:
    model = repro.convert(BERT.build())
    saved = model.config.repro_moe
    assert (saved["backbone"], saved["head"], saved["gate"]) == (
        "bert",
        "sequence-classification",
        "adaptive",
    )
    assert saved["gate_options"]["threshold"] == 0.1
    assert saved["experts"] == {"count": 16, "activation": "model", "every": 1}
    experts = moe_layers(model)[0].experts
    assert torch.equal(experts.w1[0], experts.w1[15])
    assert BERT.build().config.model_type == "bert"


def test_options_reach_the_layers() -> None:
    model = repro.convert(
        GPT2.build(), "adamoe", experts=3, init="random", activation="relu", every=2, backend="loop", nulls=2
    )
    (layer,) = moe_layers(model)
    assert (len(layer.experts.w1), layer.experts.activation) == (3, "relu")
    assert layer.experts.backend.__name__ == "repro.moe.experts.loop"  # type: ignore[attr-defined]
    assert layer.gate.config.nulls == 2
    assert not torch.equal(layer.experts.w1[0], layer.experts.w1[1])


def test_another_model_of_the_same_configuration_stays_as_it_is() -> None:
    dense = BERT.build()
    other = type(dense)(dense.config)
    repro.convert(dense, experts=4)
    assert type(other.config) is transformers.BertConfig
    assert not hasattr(other.config, "repro_moe")


def roberta() -> Any:
    config = transformers.RobertaConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    return transformers.RobertaForSequenceClassification(config)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), "model: expected one of transformers, got Linear"),
        (roberta, "model: unknown family 'roberta'. Did you mean 'bert'?"),
        (lambda: BERT.build().bert, "model: unknown class 'BertModel'. Known: BertForQuestionAnswering,"),
        (lambda: repro.convert(BERT.build(), experts=2), "model: has MoE layers already"),
    ],
    ids=["no model", "another family", "another class", "converted"],
)
def test_models_that_cannot_be_converted(model: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        repro.convert(model())
    assert str(caught.value).startswith(message)
    assert len(caught.value.problems) == 1
    assert "unknown" not in message or "CONTRIBUTING.md" in str(caught.value)


@pytest.mark.parametrize(
    ("gate", "options", "problems"),
    [
        ("adaptve", {}, ["gate: unknown gate 'adaptve'. Did you mean 'adaptive'?"]),
        ("dense", {}, ["gate: 'dense' has no MoE layers; give another one"]),
        ("adaptive", {"treshold": 0.1}, ["gate: unknown option 'treshold'. Did you mean 'threshold'?"]),
        ("adaptive", {"threshold": 2}, ["gate.threshold: must be between 0 and 1, got 2"]),
        ("adaptive", {"threshold": "low"}, ["gate.threshold: expected a number, got 'low'"]),
        ("top-2", {"k": 3}, ["gate: the name 'top-2' fixes k = 2; use gate='top-k'"]),
        ("top-2", {"experts": 0}, ["experts.count: must be between 1 and 4096, got 0"]),
        (
            "top-2",
            {"init": "copy", "every": 0},
            [
                "experts.init: expected one of random, upcycle, got 'copy'",
                "experts.every: must be at least 1, got 0",
            ],
        ),
        ("top-2", {"backend": "padde"}, ["experts.backend: unknown experts back-end 'padde'. Did you mean"]),
        ("top-2", {"experts": 1}, ["gate.k"]),
        ("top-2", {"every": 3}, ["experts.every: 3 leaves no layer to convert; the model has 2"]),
    ],
)
def test_options_that_are_not_valid(gate: str, options: dict[str, Any], problems: list[str]) -> None:
    model = BERT.build()
    with pytest.raises(UserError) as caught:
        repro.convert(model, gate, **options)
    assert len(caught.value.problems) == len(problems)
    for problem, start in zip(sorted(caught.value.problems), sorted(problems), strict=True):
        assert problem.startswith(start)
    assert moe_layers(model) == []
    assert type(model) is transformers.BertForSequenceClassification


# --- load -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["adaptive", "dense"])
def test_a_run_is_loaded_by_its_folder_or_that_of_its_model(trained: TrainedRuns, gate: str) -> None:
    folder = trained(gate).folder
    expected = pretrained.load(folder / "model", CPU)
    ids = torch.arange(3, 33).view(2, 15)
    for place in (folder, str(folder / "model")):
        model = repro.load(place)
        assert not model.training
        assert torch.equal(model(input_ids=ids).logits, expected(input_ids=ids).logits)
    auto = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "model")
    assert type(auto) is type(model)
    assert torch.equal(auto(input_ids=ids).logits, expected(input_ids=ids).logits)


def test_a_pipeline_takes_the_model_of_a_run(trained: TrainedRuns) -> None:
    folder = trained("adaptive").folder / "model"
    text = "a moving film"
    (answer,) = transformers.pipeline("text-classification", model=str(folder), device="cpu")(text, top_k=2)[
        :1
    ]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = repro.load(folder)
    with torch.no_grad():
        scores = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(0)
    assert answer["score"] == pytest.approx(float(scores.max()), abs=1e-6)
    assert model.config.label2id[answer["label"]] == int(scores.argmax())


def test_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a saved model \(no config\.json in it\)$"):
        repro.load(tmp_path)


# --- flops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tiny", [BERT, GPT2, FSMT], ids=lambda tiny: tiny.backbone)
@pytest.mark.parametrize("every", [1, 2])
def test_operations_are_those_of_the_converted_model(tiny: Tiny, every: int) -> None:
    model, batch = tiny.build(), tiny.batch()
    architecture = tiny.convert(model, "adaptive", experts={"every": every}, threshold=0.4)
    with repro.record_routing(model) as tape:
        tiny.outputs(model, batch)
    expected = Work.of(tape, tiny.masks(batch)).flops(architecture)
    assert repro.flops(model, batch) == expected
    model = models.adopt(model).train()
    assert repro.flops(model, batch) == expected
    assert model.training
    dense = repro.flops(tiny.build(), batch)
    assert isinstance(dense, Flops)
    assert dense.per_token == dense.dense_per_token == expected.dense_per_token


def test_operations_by_hand() -> None:
    """Two layers of width 16 on 2 sequences of 3 tokens, top-1 of 4 experts of width 32."""
    model = repro.convert(BERT.build(), "top-1", experts=4)
    counted = repro.flops(model, {"input_ids": torch.arange(6).view(2, 3)})
    # By layer and token: 4 D^2 + 2 S D of attention, 2 D F of an expert, 4 D of the router; the head once.
    layer = 4 * 16 * 16 + 2 * 3 * 16 + 2 * 16 * 32 + 4 * 16
    head = 16 * 16 + 16 * 2
    assert counted.macs_per_token == 2 * layer + head / 3
    assert counted.per_token == 2 * counted.macs_per_token


def test_operations_need_ids() -> None:
    with pytest.raises(UserError, match=r"^batch: no decoder_input_ids; operations are counted by token$"):
        repro.flops(FSMT.build(), {"input_ids": torch.ones(1, 3, dtype=torch.int64)})


# --- Trainer --------------------------------------------------------------------------------------


def test_gates_with_a_state_move_under_a_trainer_as_in_ones_own_loop() -> None:
    model = repro.convert(BERT.build(), "ratio", experts=4, share=0.5).train()
    twin, callback = copy.deepcopy(model), repro.hf.UpdateGates()
    callback.on_train_begin(None, None, None, model=model)
    for number in range(3):
        batch = BERT.batch()
        model(**batch)
        with repro.record_routing(twin) as tape:
            twin(**batch)
        if number == 1:
            callback.on_substep_end(None, None, None)
        else:
            callback.on_step_end(None, None, None)
        tape.update_gates()
    model.eval()(**BERT.batch())
    callback.on_step_end(None, None, None)
    callback.on_train_end(None, None, None)
    for layer, other in zip(moe_layers(model), moe_layers(twin), strict=True):
        assert isinstance(layer.gate, RatioGate)
        assert int(layer.gate.batches) == 3
        assert torch.equal(layer.gate.beta, other.gate.get_buffer("beta"))


def test_a_trainer_adds_the_loss_of_the_gates(tmp_path: Path) -> None:
    model = repro.convert(GPT2.build(), experts=4, balance=0.5)
    model.config.output_router_logits = True
    ids = GPT2.batch(masked=False)["input_ids"]
    args = transformers.TrainingArguments(tmp_path, report_to=[], use_cpu=True)
    trainer = transformers.Trainer(model, args)
    loss = trainer.compute_loss(model, {"input_ids": ids, "labels": ids})
    with repro.record_routing(model) as tape:
        logits = model(input_ids=ids, output_router_logits=False).logits
    text = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(text.item() + torch.as_tensor(tape.loss()).item(), rel=1e-5)
    # Evaluation gathers what is not ignored, and routing has as many rows as a batch has tokens.
    rows = [{"input_ids": row[:length], "labels": row[:length]} for row in ids for length in (4, 4)]
    assert trainer.predict(rows).predictions.shape == (6, 4, 50)

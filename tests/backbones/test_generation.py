"""Generating with the key/value cache: what is routed at each step, and that the text is the same."""

from typing import Any

import pytest
import torch
import transformers
from tiny_models import Tiny

from repro.moe.routing import RoutingTape, record_routing

STEPS = 6
SOURCES = {"encoder": [7, 4, 2], "decoder": [5, 3, 6]}


def settings(tiny: Tiny, beams: int, **options: Any) -> transformers.GenerationConfig:
    """Exactly `STEPS` new tokens, all different: random models like to repeat one for ever."""
    return transformers.GenerationConfig(
        max_new_tokens=STEPS,
        suppress_tokens=[0, 1, 2],
        no_repeat_ngram_size=1,
        num_beams=beams,
        do_sample=False,
        bos_token_id=0,
        eos_token_id=0 if tiny.backbone == "gpt2" else 2,
        pad_token_id=tiny.pad,
        decoder_start_token_id=None if tiny.backbone == "gpt2" else 2,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        **options,
    )


def model_of(tiny: Tiny, gate: str) -> Any:
    """Wide weights, so that texts differ; in double precision where the architecture knows it."""
    if tiny.backbone == "gpt2":
        sizes: dict[str, Any] = {"initializer_range": 0.4}
    else:  # without `forced_eos_token_id` the last token is not always `</s>`
        sizes = {"init_std": 0.7, "tie_word_embeddings": False, "forced_eos_token_id": None}
    model = tiny.converted(gate, sizes=sizes, **({"threshold": 0.4} if gate == "adaptive" else {}))
    # FSMT's causal mask overflows in double precision (`fill_with_neg_inf` goes over single).
    return model if tiny.backbone == "fsmt" else model.double()


def prompt(tiny: Tiny, padded: bool) -> dict[str, torch.Tensor]:
    """Prompts of GPT-2, padded on the left, or sources of the others, padded on the right."""
    generator = torch.Generator().manual_seed(5)
    stack = next(iter(tiny.widths))
    longest = max(SOURCES[stack])
    lengths = torch.tensor(SOURCES[stack]) if padded else torch.full((3,), longest)
    ids = torch.randint(3, 44, (3, longest), generator=generator)
    mask = torch.arange(longest) < lengths[:, None]
    if tiny.backbone == "gpt2":
        mask = mask.flip(1)
    return {"input_ids": torch.where(mask, ids, tiny.pad), "attention_mask": mask.long()}


def generate(tiny: Tiny, model: Any, padded: bool, beams: int, **options: Any) -> tuple[Any, RoutingTape]:
    with record_routing(model) as tape:
        generated = model.generate(**prompt(tiny, padded), generation_config=settings(tiny, beams, **options))
    return generated, tape


def new_tokens(tiny: Tiny, sequences: torch.Tensor) -> torch.Tensor:
    assert sequences.shape[1] >= STEPS
    return sequences[:, -STEPS:]


CASES = pytest.mark.parametrize(
    ("gate", "beams", "padded"),
    [
        ("adaptive", 1, False),
        ("adaptive", 1, True),
        ("adaptive", 3, False),
        ("adaptive", 3, True),
        ("top-2", 3, True),
    ],
)


@pytest.fixture(params=["gpt2", "bart", "fsmt"])
def writer(request: pytest.FixtureRequest) -> Tiny:
    """The backbones that generate text."""
    head = "causal-language-model" if request.param == "gpt2" else "sequence-to-sequence"
    return Tiny(request.param, head)


@CASES
def test_each_step_routes_only_its_new_tokens(writer: Tiny, gate: str, beams: int, padded: bool) -> None:
    model = model_of(writer, gate)
    _, tape = generate(writer, model, padded, beams)
    mask = prompt(writer, padded)["attention_mask"]
    entries = list(tape.entries)
    if writer.backbone != "gpt2":
        # The encoder runs once, over the sources alone, not once for every beam or step.
        for layer in (0, 1):
            mine = [entry for entry in entries if entry.layer == layer]
            assert len(mine) == 1
            assert ((mine[0].count_BS() > 0) == mask.bool()).all()
        entries = [entry for entry in entries if entry.layer > 1]
        first = torch.ones(3 * beams, 1, dtype=torch.bool)
    else:
        first = mask.bool().repeat_interleave(beams, 0)
    layers = sorted({entry.layer for entry in entries})
    assert len(layers) == 2
    assert len(entries) == 2 * STEPS
    for step in range(STEPS):
        for entry in entries[2 * step : 2 * step + 2]:
            count_BS = entry.count_BS()
            if step == 0:
                assert torch.equal(count_BS > 0, first)
            else:
                assert count_BS.shape == (3 * beams, 1)
                assert entry.routing.mask_T.all()
                assert (count_BS > 0).all()
            if gate == "top-2":
                assert entry.routing.load_E.sum() == 2 * entry.routing.mask_T.sum()


@CASES
def test_the_cache_does_not_change_the_text(writer: Tiny, gate: str, beams: int, padded: bool) -> None:
    model = model_of(writer, gate)
    generated, _ = generate(writer, model, padded, beams)
    texts = new_tokens(writer, generated.sequences)
    assert len(set(map(tuple, texts.tolist()))) == 3
    assert len(torch.unique(texts)) > STEPS
    if writer.backbone == "fsmt":
        return  # see below: without the cache transformers' FSMT decodes without a causal mask
    slow, tape = generate(writer, model, padded, beams, use_cache=False)
    assert torch.equal(new_tokens(writer, slow.sequences), texts)
    for cached, other in zip(generated.logits, slow.logits, strict=True):
        torch.testing.assert_close(cached, other, rtol=0, atol=1e-5)
    longest = max(entry.routing.mask_T.numel() for entry in tape.entries)
    assert longest > 3 * beams * (STEPS - 1)  # it really was without


@CASES
def test_scores_are_those_of_reading_the_text_at_once(
    writer: Tiny, gate: str, beams: int, padded: bool
) -> None:
    # Teacher forcing over the whole text, without any cache: the same probability for every token.
    model = model_of(writer, gate)
    generated, _ = generate(writer, model, padded, beams)
    inputs = prompt(writer, padded)
    texts = new_tokens(writer, generated.sequences)
    if writer.backbone == "gpt2":
        ids = torch.cat([inputs["input_ids"], texts], 1)
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(texts)], 1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        call = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    else:
        shifted = torch.cat([torch.full((3, 1), 2), texts[:, :-1]], 1)
        call = inputs | {"decoder_input_ids": shifted, "decoder_attention_mask": torch.ones_like(shifted)}
    with torch.no_grad():
        logits = model(**call, use_cache=False).logits
    if writer.backbone == "gpt2":
        logits = logits[:, -STEPS - 1 : -1]
    likelihood = logits.log_softmax(-1).gather(2, texts[..., None])[..., 0]
    if beams > 1:  # the score of a text is its log likelihood, per token
        scores = likelihood.float().sum(1) / STEPS
        torch.testing.assert_close(generated.sequences_scores, scores, rtol=0, atol=1e-4)
    else:
        logits_SBV = torch.stack(generated.logits)
        torch.testing.assert_close(logits_SBV, logits.transpose(0, 1).float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_prompt_gives_the_same_text_alone_and_in_a_padded_batch(writer: Tiny, beams: int) -> None:
    model = model_of(writer, "adaptive")
    generated, _ = generate(writer, model, True, beams)
    inputs = prompt(writer, True)
    for row in range(3):
        real = inputs["attention_mask"][row].bool()
        alone = model.generate(
            input_ids=inputs["input_ids"][row : row + 1, real],
            attention_mask=torch.ones(1, int(real.sum()), dtype=torch.int64),
            generation_config=settings(writer, beams),
        )
        assert torch.equal(
            new_tokens(writer, alone.sequences)[0], new_tokens(writer, generated.sequences)[row]
        )


def test_sequences_that_end_early(writer: Tiny) -> None:
    model, inputs = model_of(writer, "adaptive"), prompt(writer, True)
    texts = new_tokens(writer, generate(writer, model, True, 1)[0].sequences).tolist()
    # Let a token that occurs in the first text alone be the end of all texts.
    end = next(token for token in texts[0] if token not in texts[1] + texts[2])
    options = settings(writer, 1)
    options.eos_token_id, options.return_dict_in_generate = end, False
    with record_routing(model) as tape:
        shorter = new_tokens(writer, model.generate(**inputs, generation_config=options))
    stop = texts[0].index(end) + 1
    assert shorter[0].tolist() == texts[0][:stop] + [writer.pad] * (STEPS - stop)
    assert shorter[1:].tolist() == texts[1:]
    last = [entry for entry in tape.entries if entry.layer == tape.entries[-1].layer]
    assert [entry.routing.mask_T.numel() for entry in last][1:] == [3] * (STEPS - 1)

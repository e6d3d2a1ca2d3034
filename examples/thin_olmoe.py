"""Thin the experts of a pretrained OLMoE without training: loss and experts per token by threshold.

python examples/thin_olmoe.py [allenai/OLMoE-1B-7B-0924]    without a name: a tiny random model

A token is given its next expert, up to the model's own k, while the gap to the one before is at most the
threshold: at 1 the model is as it was.
"""

import copy
import sys

import torch
from transformers import AutoModelForCausalLM, OlmoeConfig, OlmoeForCausalLM

import repro

TINY = OlmoeConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    num_experts=8,
    num_experts_per_tok=4,
    pad_token_id=0,
    eos_token_id=0,
)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]) if len(sys.argv) > 1 else OlmoeForCausalLM(TINY)
config = model.eval().config
weights = "renormalised" if config.norm_topk_prob else "raw"
ids = torch.randint(1, config.vocab_size, (4, 32))  # here a text of one's own

print("threshold   loss  experts per token  FLOPs per token")
for threshold in (1.0, 0.5, 0.2, 0.1, 0.0):
    thin = repro.convert(
        copy.deepcopy(model),
        "adaptive-k",
        k=config.num_experts_per_tok,
        threshold=threshold,
        combine=weights,
    )
    with torch.no_grad(), repro.record_routing(thin) as tape:
        loss = thin(input_ids=ids, labels=ids).loss
    counts = torch.cat([entry.routing.count_T for entry in tape.entries]).double()
    operations = repro.flops(thin, {"input_ids": ids}).per_token
    print(f"{threshold:9.1f}  {loss:5.3f}  {counts.mean():17.2f}  {operations:15.3g}")

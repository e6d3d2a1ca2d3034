"""Thin the experts of a pretrained OLMoE without training: loss and experts per token by threshold.

python examples/thin_olmoe.py [allenai/OLMoE-1B-7B-0924]    without a name: a tiny random model
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
    num_experts_per_tok=2,
    pad_token_id=0,
    eos_token_id=0,
)
torch.manual_seed(0)
dense = AutoModelForCausalLM.from_pretrained(sys.argv[1]) if len(sys.argv) > 1 else OlmoeForCausalLM(TINY)
dense.eval()
batch = {"input_ids": torch.randint(1, dense.config.vocab_size, (4, 32))}

print("threshold  loss  experts per token  FLOPs per token")
for threshold in (1.0, 0.5, 0.2, 0.1, 0.0):
    model = repro.convert(
        copy.deepcopy(dense), "adaptive", threshold=threshold, experts=dense.config.num_experts
    )
    with torch.no_grad(), repro.record_routing(model) as tape:
        loss = model(**batch, labels=batch["input_ids"]).loss
    counts = torch.cat([entry.routing.count_T for entry in tape.entries]).double()
    operations = repro.flops(model, batch).per_token
    print(f"{threshold:9.1f}  {float(loss):.3f}  {float(counts.mean()):17.2f}  {operations:15.3g}")

"""Convert a GPT-2 to adaptive MoE layers and train it in one's own loop.

python examples/own_loop.py [openai-community/gpt2]    without a name: a tiny random model
"""

import sys

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import repro

TINY = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]) if len(sys.argv) > 1 else GPT2LMHeadModel(TINY)

repro.convert(model, gate="adaptive", threshold=0.1, experts=4, init="upcycle").train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(5):
    ids = torch.randint(model.config.vocab_size, (4, 32))
    with repro.record_routing(model) as tape:
        loss = model(input_ids=ids, labels=ids).loss
    (loss + tape.loss()).backward()
    optimizer.step()
    optimizer.zero_grad()
    tape.update_gates()
    counts = torch.cat([entry.routing.count_T for entry in tape.entries]).double()
    print(f"step {step}: loss {loss.item():.3f}, {counts.mean():.2f} experts per token")
print(f"{repro.flops(model, {'input_ids': ids}).per_token:.3g} FLOPs per token")

"""Convert a GPT-2 to adaptive MoE layers, train it under `transformers.Trainer`, save and load it.

python examples/with_trainer.py [openai-community/gpt2]    without a name: a tiny random model
"""

import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import repro
from repro.hf import UpdateGates

TINY = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]) if len(sys.argv) > 1 else GPT2LMHeadModel(TINY)

repro.convert(model, gate="adaptive", threshold=0.1, experts=4, init="upcycle")
model.config.output_router_logits = True  # the loss includes that of the gates
texts = torch.randint(model.config.vocab_size, (16, 32))
rows = [{"input_ids": ids, "labels": ids} for ids in texts]
with tempfile.TemporaryDirectory() as folder:
    args = TrainingArguments(folder, max_steps=4, per_device_train_batch_size=4, report_to=[])
    trainer = Trainer(model, args, train_dataset=rows, eval_dataset=rows, callbacks=[UpdateGates()])
    trainer.train()
    print(f"loss {trainer.evaluate()['eval_loss']:.3f}")
    trainer.save_model(folder)
    again = AutoModelForCausalLM.from_pretrained(folder).to(model.device)

texts = texts.to(model.device)
with torch.no_grad():
    same = torch.equal(again(input_ids=texts).logits, model.eval()(input_ids=texts).logits)
print(f"saved and loaded it gives {'the same' if same else 'other'} logits")

"""Backbones: what this project must know about a Hugging Face architecture to convert and count it.

A file `backbones/<name>.py` is a backbone. It exposes

* `MODEL_TYPE`: the `model_type` of its Hugging Face configuration;
* `CONFIG`: that configuration class;
* `HEADS`: task head -> model class;
* `ffn_sites(model)`: its feed-forward networks, as `FFNSite`s, in the order of computation;
* `token_masks(call)`: from the arguments of a model call, stack name -> mask (B, S), True for real
  tokens, or None when all are;
* `TIME_MAJOR`: whether activations inside its layers are (S, B, D) instead of (B, S, D);
* `forward_macs(config, head, volume)`: multiply-adds of a dense forward pass, as `DenseMacs`;
* `train_tokenizer(texts, vocab_size)`: a tokenizer of the family's own kind.
"""

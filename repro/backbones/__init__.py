"""Backbones: what this project must know about a Hugging Face architecture to convert and count it.

A file `backbones/<name>.py` is a backbone. It exposes

* `MODEL_TYPE`: the `model_type` of its Hugging Face configuration;
* `STACKS`: `encoder` and/or `decoder`;
* `CONFIG`: that configuration class;
* `HEADS`: task head -> model class;
* `INIT_STD`: the entry of the configuration that gives the spread of fresh weights;
* `TIME_MAJOR`: whether activations inside its layers are (S, B, D) instead of (B, S, D);
* `ffn_sites(model)`: its feed-forward networks, as `FFNSite`s, in the order of computation;
* `stacks(model)`: `encoder` and/or `decoder` -> `Stack`: where the masks of real tokens pass by;
* `fixed_parameters(model)`: its parameters that are never trained;
* `rest_macs(config, head, volume)`: multiply-adds of a forward pass outside the FFNs;
* `vocabulary(tokenizer)`: the configuration entries that follow from a trained tokenizer;
* `train_tokenizer(texts, vocab_size)`: a tokenizer of the family's own kind.
"""

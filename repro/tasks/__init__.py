"""Tasks: what is learned, from which examples, and how well. The trainer knows none of them.

A file `tasks/<name>.py` is a task. It exposes

* `TITLE`: its name in the paper's tables; `METRIC`: a member of `metrics`;
* `HUB`: `(dataset, configuration or None)`; `FOLDER`: its name in a data folder;
  `CORPUS`: a member of `corpora`; `COLUMNS`: the columns that a row must have;
* `BACKBONE` and `HEAD`: the model it fine-tunes; `MODEL_OPTIONS`: what its head needs in the
  Hugging Face configuration;
* `problem(row)`: what is wrong with a row, or None;
* `texts(row)`: the strings that a tokenizer is trained on;
* `encode(rows, tokenizer, max_length)`: one feature (a dict of lists, with `input_ids`) per row;
* `collate(features, pad_id)`: the tensors of a batch, as the model's arguments;
* `loss_terms(batch)`: how many terms the model's mean loss averages over;
* `predict(outputs, batch)`: one prediction per example, from the model's output;
* `references(rows)`: what predictions are compared with.
"""

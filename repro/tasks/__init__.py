"""Tasks: what is learned, from which examples, and how well. The trainer knows none of them.

A file `tasks/<name>.py` is a task. It exposes

* `TITLE`: its name in the paper's tables; `METRIC`: a member of `metrics`;
* `HUB`: `(dataset, configuration or None)`; `FOLDERS`: its names in a data folder, the first that
  exists is read; `CORPUS`: a member of `corpora`; `COLUMNS`: the columns that a row must have;
* `CONTIGUOUS`: whether a part of a split is its beginning (running text) or a random choice;
* `BACKBONE` and `HEAD`: the model it fine-tunes; `MODEL_OPTIONS`: what its head needs in the
  Hugging Face configuration;
* `problem(row)`: what is wrong with a row, or None;
* `texts(row)`: the strings that a tokenizer is trained on;
* `Config`: a frozen dataclass of its own options, all with defaults;
* `Task`: the encoding, batches, predictions and answers; see `_base.Task`. Its `parts(feature)` may say
  which part of the input each position belongs to (question, context), for the analysis; one part by default.
"""

"""Data: rows, tokenizers and encoded features of a task's splits."""

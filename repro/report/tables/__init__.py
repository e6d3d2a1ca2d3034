"""The tables: a file is a table; `base.py` has the contract."""

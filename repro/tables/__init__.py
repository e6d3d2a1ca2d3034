"""Tables: rows derived from finished runs, and nothing else. No torch on this floor.

A file `tables/<name>.py` is a table. It exposes

* `FILE`: the name of its CSV file;
* `COLUMNS`: the header;
* `rows(results)`: one mapping per row, from the `result.json` objects of a scale. A value that was
  not measured is None and becomes an empty cell, never 0.
"""

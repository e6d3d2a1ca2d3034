"""Tables: rows derived from finished runs, and nothing else. No torch on this floor.

A file `tables/<name>.py` is a table. It exposes

* `FILE`: the name of its CSV file;
* `COLUMNS`: the header;
* `rows(published)`: one mapping per row, from what a scale has published; none when the study that
  it needs was not made. A value that was not measured is None: an empty cell, never 0.
"""

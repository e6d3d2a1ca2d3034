"""Tasks: what is learned, from which examples, and how well; `base` has their contract."""

"""Studies: which runs a table needs, and doing them."""

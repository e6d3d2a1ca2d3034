"""Expert back-ends: ways to compute the experts of one layer and combine them; contract in `base`."""

"""Analyses: a finished model once more, to see which tokens get two experts."""

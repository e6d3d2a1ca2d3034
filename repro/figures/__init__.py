"""Figures: drawn from what a scale has published, and nothing else. No torch on this floor.

A file `figures/<name>.py` is a figure. It exposes

* `FILE`: the name of its files, without suffix;
* `TITLE`: what it shows, in one line;
* `draw(published)`: a `matplotlib.figure.Figure`, or None when nothing of it was measured.
"""

"""Figures of the report; `base` has their contract."""

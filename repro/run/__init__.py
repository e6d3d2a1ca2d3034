"""Runs: one configuration to one result."""

"""Mixture-of-experts layers: routing, gates, experts, conversion of models, FLOPs."""

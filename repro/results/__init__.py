"""Results as values: what runs, studies, analyses and benchmarks leave on disk, checked and typed.

Every file of a results folder has a model here, and nobody else reads its JSON by string keys. Fields
are documented with their units. JSON keys that differ from a field's name are its aliases; they stay
until the next schema version.
"""

"""The commands of `repro`."""

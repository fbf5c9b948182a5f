"""Measurements: ``python -m bench CASE --json FILE``."""

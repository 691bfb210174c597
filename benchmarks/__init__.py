"""Measurements: one script for each question, `python -m benchmarks.NAME`."""

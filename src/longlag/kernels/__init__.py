"""Loops over time as one kernel: the normal form of a step, and what runs it."""

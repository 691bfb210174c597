"""Protocols of others, their numbers beside ours."""

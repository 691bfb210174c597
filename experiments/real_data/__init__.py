"""Intents, text, speech, translation and captions."""

"""The experiments: one script per question."""

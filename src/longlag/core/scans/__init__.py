"""The scans: step by step for any cell, and one for each kind that is parallel in time."""

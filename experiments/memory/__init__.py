"""Questions on memory tasks: what a recurrence holds, and what attention adds."""

"""How a recurrence is described and run: the contract of a cell, its kinds, `unroll`."""

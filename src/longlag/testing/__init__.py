"""The contracts, for tests of cells and tasks of one's own: `check_cell` and `check_task`."""

from longlag.testing.cells import check_cell
from longlag.testing.tasks import check_task

__all__ = ["check_cell", "check_task"]

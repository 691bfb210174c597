"""The contracts of cells and tasks, for tests of one's own."""

from longlag.testing.cells import check_cell
from longlag.testing.extreme_values import check_extremes
from longlag.testing.tasks import check_task

__all__ = ["check_cell", "check_extremes", "check_task"]

"""Memory tasks: data as a pure function of a key, with the score of the best fixed answer.

A task is found by itself: a module here that has its class in `__all__`.
"""

from longlag.core.batch import Batch as Batch
from longlag.system.discovery import exports as _exports
from longlag.tasks.task import Floor as Floor
from longlag.tasks.task import Task as Task
from longlag.tasks.task import pad as pad

globals().update(_tasks := _exports(__name__, base=Task))
__all__ = sorted(["Batch", "Floor", "Task", "pad", *_tasks])  # type: ignore[reportUnsupportedDunderAll]

"""The cells, one file each. A new file is found by itself."""

from longlag.system.discovery import exports as _exports

globals().update(_cells := _exports(__name__))
__all__ = [*_cells]  # type: ignore[reportUnsupportedDunderAll]

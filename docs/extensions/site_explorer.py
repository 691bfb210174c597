"""Makes the explorer of results a page of the site, `results/explorer.html`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.harness import explorer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGE = "results/explorer.html"


def _write(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        explorer.main(Path(app.outdir) / PAGE, results="../results.html")


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds the extension to Sphinx."""
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

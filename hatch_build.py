"""Builds the native loop into a wheel: a hook of hatchling, which nothing else imports.

Without `LONGLAG_WHEEL=native` the wheel is for any machine, and the loop is compiled at first use.
With it, the wheel is for machines of the kind that builds it. `CXX` may name a compiler for another
kind, and `LONGLAG_MACHINE` then names that kind, such as "aarch64".
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeLoops(BuildHookInterface[Any]):
    """Adds a library for each instruction set, and names the kind of machine in the tag."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles the libraries, unless the wheel is for any machine or an editable one."""
        if os.environ.get("LONGLAG_WHEEL") != "native" or version == "editable":
            return
        sys.path.insert(0, str(Path(self.root) / "src"))
        from longlag.kernels.compiling import BUILT, VARIANTS, compile_loop

        machine = os.environ.get("LONGLAG_MACHINE", platform.machine())
        if machine not in VARIANTS:
            raise ValueError(f"machine: expected one of {', '.join(VARIANTS)}; got {machine!r}")
        for variant, (flags, _) in VARIANTS[machine].items():
            path = BUILT / f"loop-{variant}.so"
            # The standard library of C++ goes in, since that of another machine may be older.
            static = ("-static-libstdc++", "-static-libgcc")
            compile_loop(os.environ.get("CXX", "g++"), (*flags, *static), path)
            build_data["force_include"][str(path)] = f"longlag/kernels/built/{path.name}"
        build_data["tag"] = f"py3-none-linux_{machine}"
        build_data["pure_python"] = False

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the libraries from the checkout, where the one for this very machine is taken."""
        del version, artifact_path
        for path in build_data["force_include"]:
            if path.endswith(".so"):
                Path(path).unlink(missing_ok=True)

"""Compiles the packet path into the wheel where that can be done (hatchling's build hook; scripts/compile.py).

Without a C compiler, or when compiling fails, the wheel is pure Python, with the same results, and the build says so.
EGRESSD_PURE=1 asks for that. EGRESSD_PROFILE=1 is for wheels that are published: compiled twice, the second time by a
profile (`scripts/compile.py --profile`), which needs what egressd itself needs, so build without isolation. An editable
installation stays pure: `scripts/compile.py` compiles in the tree itself.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _is_set(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


class CompiledPacketPath(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the extension modules to a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the wheel is put together."""
        self._tree: Path | None = None
        if self.target_name != "wheel" or version == "editable":
            return
        compiling = self._compile_script()
        if _is_set("EGRESSD_PURE"):
            wrong = "EGRESSD_PURE is set"
        else:
            wrong = compiling.missing()
        if not wrong:
            self._tree = Path(tempfile.mkdtemp(prefix="egressd-build-"))
            compiling.copy(self._tree)
            self.app.display_info("compiling the packet path (minutes) ...")
            if _is_set("EGRESSD_PROFILE"):
                wrong = compiling.build(self._tree, profile=True)
                if wrong:
                    self.app.display_warning(f"not by a profile: {wrong[-2000:]}")
            if wrong or not _is_set("EGRESSD_PROFILE"):
                wrong = compiling.build(self._tree)
        if wrong or self._tree is None:
            self.app.display_warning(f"not compiled: {wrong[-2000:]}\nThis wheel is pure Python: same results, slower.")
            return
        made = [*self._tree.glob("*.so"), *(self._tree / "egressd").rglob("*.so")]
        build_data["force_include"].update({str(path): str(path.relative_to(self._tree)) for path in made})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """After it."""
        if self._tree is not None:
            shutil.rmtree(self._tree, ignore_errors=True)

    def _compile_script(self) -> ModuleType:
        path = Path(self.root) / "scripts" / "compile.py"
        spec = importlib.util.spec_from_file_location("egressd_compile", path)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

"""Compiles the packet path with mypyc, from the same sources: `python scripts/compile.py`.

Extension modules appear beside their .py files, which stay and are what is compiled; Python prefers the compiled ones
until `--clean` removes them. `--into DIR` leaves this tree alone and makes a compiled copy in DIR. Needs mypy and a C
compiler; without them it says so and everything goes on in pure Python, with the same results but slower.

`--profile` compiles twice: the first build counts its own branches while it replays captures that bench/traffic.py
makes, and GCC lays the second out by these counts (GCC manual, "Options That Control Optimization": -fprofile-use).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

# The packet path, and what it calls for nearly every observation. The rest is loaded once or runs for a sighting.
MODULES: Final = (
    "egressd/model.py",
    "egressd/names.py",
    "egressd/wire/*.py",
    "egressd/capture/*.py",
    "egressd/intel/index.py",
    "egressd/intel/index_format.py",
    "egressd/intel/layered.py",
    "egressd/intel/mapped.py",
    "egressd/intel/mapped_build.py",
    "egressd/intel/mapped_parts.py",
    "egressd/intel/networks.py",
    "egressd/intel/protected.py",
    "egressd/intel/resolvers.py",
    "egressd/intel/shared_ranges.py",
    "egressd/intel/allowances.py",
    "egressd/detect/*.py",
    "egressd/detect/behaviour/*.py",
)
STAMP: Final = "egressd/.compiled-from"
PROFILED: Final = "-profiled"  # behind the digest in the stamp

# Calls within the one shared library need not go through the linker's table, so that small functions are inlined.
FLAGS: Final = ("-O3", "-g0", "-fno-semantic-interposition")
# A file of C for each module, which all cores compile: as one of 17 MB it takes GCC three times as long, on one core,
# with 1.5 GB.
BUILD: Final = """
import sys
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from mypyc.build import mypycify
from setuptools import setup
from setuptools.command.build_ext import build_ext

class BuildOnAllCores(build_ext):
    def build_extension(self, ext):
        def compiled(source):
            flags = ext.extra_compile_args
            return self.compiler.compile(
                [source], output_dir=self.build_temp, macros=ext.define_macros, include_dirs=ext.include_dirs,
                extra_postargs=flags,
            )
        with ThreadPoolExecutor(cpu_count()) as pool:
            ext.extra_objects += [path for paths in pool.map(compiled, ext.sources) for path in paths]
        ext.sources = []
        super().build_extension(ext)

flags, modules = sys.argv[1].split(), sys.argv[2:]
typing = ["--strict", "--ignore-missing-imports"]
extensions = mypycify([*typing, *modules], opt_level="3", debug_level="0", multi_file=True)
for extension in extensions:  # which share one list of mypyc's
    extension.extra_compile_args = [*extension.extra_compile_args, *flags]
    extension.extra_link_args = [*extension.extra_link_args, *flags]
setup(
    name="egressd-compiled", packages=[], ext_modules=extensions, cmdclass={"build_ext": BuildOnAllCores},
    script_args=["-q", "build_ext", "--inplace", "-f"],
)
"""

# What the counting build replays, packets by kind of bench/traffic.py: mostly what a gateway mostly sees. What they do
# not reach is compiled as without counts (-fprofile-partial-training). The linker puts the modules together again
# (-flto), so that counts reach across them: as one file it comes to the same, and takes three times as long.
COUNT: Final = ("-fprofile-generate",)
USE_COUNTS: Final = ("-flto=auto", "-fprofile-use", "-fprofile-partial-training", "-Wno-missing-profile")
TRAINING: Final = {"bulk": 200_000, "names": 20_000, "subdomains": 5_000, "hellos": 5_000, "syn": 5_000, "quic": 3_000}


def sources(tree: Path) -> list[str]:
    """The modules to compile. Packages' own files hold nothing."""
    found = {path for pattern in MODULES for path in tree.glob(pattern) if path.name != "__init__.py"}
    return sorted(str(path.relative_to(tree)) for path in found)


def state(tree: Path) -> str:
    """A digest of all that the result depends on."""
    digest = sha256(Path(__file__).read_bytes() + sysconfig.get_config_var("EXT_SUFFIX").encode())
    for path in sorted((tree / "egressd").rglob("*.py")):
        digest.update(str(path.relative_to(tree)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def clean(tree: Path) -> int:
    """Remove what was compiled; how many files that were."""
    made = [*(tree / "egressd").rglob("*.so"), *tree.glob("*__mypyc*.so")]
    for path in made:
        path.unlink()
    (tree / STAMP).unlink(missing_ok=True)
    return len(made)


def copy(tree: Path) -> None:
    """The package as it is here, without what was compiled."""
    shutil.rmtree(tree / "egressd", ignore_errors=True)
    shutil.copytree(ROOT / "egressd", tree / "egressd", ignore=shutil.ignore_patterns("__pycache__", "*.so", STAMP[8:]))


def missing() -> str:
    """What is needed and not there, or ""."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"no C compiler ({compiler})"
    asked = subprocess.run([sys.executable, "-c", "import mypyc, setuptools"], capture_output=True, check=False)
    return "no mypy or no setuptools in this environment" if asked.returncode else ""


def build(tree: Path, profile: bool = False) -> str:
    """Compile in `tree`, twice for a `profile`; "" or what went wrong. A failed build leaves nothing behind."""
    clean(tree)
    with tempfile.TemporaryDirectory() as scratch:
        # Where the sources are is where mypyc and setuptools leave their intermediate files: let that be elsewhere.
        place = Path(scratch)
        shutil.copytree(tree / "egressd", place / "egressd", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        wrong = ""
        if profile:
            wrong = run_in(place, "-c", BUILD, " ".join((*FLAGS, *COUNT)), *sources(place)) or train(place)
        if not wrong:
            flags = (*FLAGS, *USE_COUNTS) if profile else FLAGS
            wrong = run_in(place, "-c", BUILD, " ".join(flags), *sources(place))
        if wrong:
            return wrong
        for path in [*place.glob("*.so"), *(place / "egressd").rglob("*.so")]:
            shutil.copy2(path, tree / path.relative_to(place))
    (tree / STAMP).write_text(state(tree) + (PROFILED if profile else ""), encoding="ascii")
    return ""


def train(place: Path) -> str:
    """Let the counting build in `place` replay; "" or what went wrong. Counts lie beside the object files."""
    for kind, packets in TRAINING.items():
        capture = place / f"{kind}.pcap"
        wrong = run_in(place, str(ROOT / "bench" / "traffic.py"), kind, str(capture), "--packets", str(packets))
        wrong = wrong or run_in(place, "-m", "egressd", "replay", "--list", f"{capture}.list", str(capture))
        if wrong:
            return wrong
    return "" if any(place.rglob("*.gcda")) else "the C compiler's code wrote no profile (GCC's does)"


def run_in(place: Path, *words: str) -> str:
    """Run this Python in `place`; "" or what it said when it failed."""
    done = subprocess.run([sys.executable, *words], cwd=place, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip() or f"exit code {done.returncode}" if done.returncode else ""


def main(argv: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compile egressd's packet path with mypyc.")
    parser.add_argument("--into", type=Path, metavar="DIR", help="compile a copy there, and leave this tree alone")
    parser.add_argument(
        "--profile", action="store_true", help="compile twice, the second time by what the first counted"
    )
    parser.add_argument("--clean", action="store_true", help="remove what was compiled")
    args = parser.parse_args(argv)
    tree: Path = args.into.resolve() if args.into else ROOT
    if args.clean:
        print(f"{clean(tree)} compiled files removed: {tree} is pure Python")
        return 0
    stamp = tree / STAMP
    made = stamp.read_text(encoding="ascii") if stamp.exists() else ""
    if made == state(ROOT) + PROFILED or (made == state(ROOT) and not args.profile):
        print(f"{tree} is compiled from these very sources already")
        return 0
    lacking = missing()
    if lacking:
        print(f"not compiled: {lacking}. egressd runs in pure Python")
        return 0
    if args.into:
        tree.mkdir(parents=True, exist_ok=True)
        copy(tree)
    wrong = build(tree, args.profile)
    if wrong:
        print(f"{wrong}\nnot compiled: the build failed. egressd runs in pure Python", file=sys.stderr)
        return 1
    print(f"{len(sources(tree))} modules compiled in {tree}; to undo: scripts/compile.py --clean")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

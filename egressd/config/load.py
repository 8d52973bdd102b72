"""Configuration and the text files it names, from disk: a Config, and from it everything that detection needs to know.

Nothing is read in part: a file that cannot be used is left out whole and is a Problem, and the caller decides whether
it goes on. What the shipped files say stands in for a suffix list or a guard that cannot be used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from egressd.config.schema import Config
from egressd.detect.engine import Intel
from egressd.detect.policy import PolicySettings
from egressd.errors import ConfigError, Problem
from egressd.intel.allowances import Allowance, Allowances, parse_allowances
from egressd.intel.formats import parse_list
from egressd.intel.guard import Guard
from egressd.intel.index import Index
from egressd.intel.networks import NetworkTable, first_address, parse_address, parse_network
from egressd.intel.protected import Protected
from egressd.intel.resolvers import Resolvers
from egressd.model import Indicator
from egressd.names import Suffixes, escape

MAX_CONFIG_BYTES: Final = 1 << 20  # a person writes it; a large site's has some tens of kilobytes
MAX_LIST_BYTES: Final = 64 << 20  # two million names with options; more belongs into a feed
MAX_FILES: Final = 1_000  # that one pattern may name

SHIPPED: Final = Path(__file__).resolve().parent.parent / "intel" / "data"
_STREAMS: Final = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # a shell's <(command) and pipes

_MAGIC: Final = frozenset("*?[")

_GZIP: Final = b"\x1f\x8b"
_ZIP: Final = b"PK\x03\x04"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


Loaded = TypeVar("Loaded")


class LoadedList(NamedTuple):
    """A block list as it was read: its name as the user gave it, and how much of it is of use."""

    name: str
    indicators: int
    problems: int


class LoadedIntel(NamedTuple):
    """What the text files say. `demo` when no list was given and the built-in one stands in for it."""

    intel: Intel
    guard: Guard
    suffix_list: Path  # the file that the suffixes were read from
    lists: tuple[LoadedList, ...]
    allowances: int
    problems: list[Problem]
    demo: bool

    def check(self) -> None:
        """Raises ConfigError with every problem when there is one."""
        if self.problems:
            raise ConfigError(self.problems)


def default_config() -> Config:
    """The configuration when there is no file."""
    return Config()


def load_config(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError with every problem found, in order of place."""
    shown = escape_path(path)
    found = _read(path, shown, MAX_CONFIG_BYTES)
    if isinstance(found, Problem):
        raise ConfigError([found])
    from egressd.config.document import parse_config  # PyYAML takes 20 ms that a replay without a file does not need

    config, problems = parse_config(found, shown)
    if problems:
        raise ConfigError(problems)
    return config


def load_intel(config: Config, extra_lists: Sequence[Path] = (), *, base_dir: Path) -> LoadedIntel:
    """Read the shipped files and all that a configuration and the command line name. Never raises: see `problems`.

    Relative paths of the configuration start at `base_dir`, those of `extra_lists` at the current folder.
    """
    return _Loading(config, base_dir).load(extra_lists)


def policy_settings(config: Config) -> PolicySettings:
    """What the policy needs of the configuration."""
    policy = config.policy
    return PolicySettings(
        mode=config.mode,
        block_confidence=policy.block_confidence,
        shared_after=policy.shared_after,
        addresses_per_indicator_hour=policy.addresses_per_indicator_hour,
        blocks_per_hour=policy.blocks_per_hour,
        resolvers=frozenset(parse_address(one) for one in config.resolvers),
    )


def segment_table(config: Config) -> NetworkTable[str]:
    """Segment names by network: `longest(addr)` is a client's segment."""
    return NetworkTable((*_network(text), name) for name, texts in config.segments.items() for text in texts)


def escape_path(path: Path | str) -> str:
    """A path as it can be shown: file names may hold anything."""
    text = str(path)
    return text if text.isprintable() else escape(os.fsencode(text))


class _Loading:
    """One load: collects problems while files are read in the order in which they depend on one another."""

    def __init__(self, config: Config, base_dir: Path) -> None:
        self.config = config
        self.base_dir = base_dir
        self.problems: list[Problem] = []
        self.suffix_list = SHIPPED / "public_suffix_list.dat"

    def load(self, extra_lists: Sequence[Path]) -> LoadedIntel:
        """Suffixes, guard, protected addresses, lists, allowances."""
        config = self.config
        suffixes = self._suffixes()
        guard = self._guard(suffixes)
        resolvers = self._keep(Resolvers.parse(_shipped("resolvers.txt"), "resolvers.txt"))
        protected = self._protected(resolvers)
        feeds = any(feed.enabled for feed in config.feeds.values())  # the daemon has them, and adds what they say
        demo = not config.lists and not extra_lists and not feeds
        indicators: list[Indicator] = []
        lists: list[LoadedList] = []
        for name, text in self._texts(extra_lists, demo):
            found, problems = parse_list(text, name, suffixes, guard, protected=protected)
            indicators += found
            lists.append(LoadedList(name, len(found), len(problems)))
            self.problems += problems
        allowed: list[Allowance] = []
        for key, name, path in self._named("allow", config.allow):
            content = self._content(key, name, path)
            if content is not None:
                allowed += self._keep(parse_allowances(content, name, suffixes))
        intel = Intel(Index.build(indicators, suffixes), suffixes, Allowances(allowed), protected, resolvers)
        return LoadedIntel(intel, guard, self.suffix_list, tuple(lists), len(allowed), self.problems, demo)

    def _suffixes(self) -> Suffixes:
        given = self._given("suffix_list", self.config.suffix_list)
        if given is not None:
            try:
                suffixes = Suffixes.parse(given, self.config.suffix_list)
                self.suffix_list = self.base_dir / self.config.suffix_list
                return suffixes
            except ConfigError as error:
                self.problems += error.problems
        return Suffixes.parse(_shipped(self.suffix_list.name))

    def _guard(self, suffixes: Suffixes) -> Guard:
        options = self.config.guard
        for number, domain in enumerate(self.config.own_domains):
            if suffixes.is_suffix(domain):
                what = f"{domain} is a public suffix, and others have domains under it"
                self._wrong(f"own_domains[{number}]", what, "name your registered domain")
        source = options.file or "guard.txt"
        given = self._given("guard.file", options.file)
        popular = self._given("guard.popular_file", options.popular_file) or ""
        ranked = rank_names(popular)
        guard, problems = Guard.parse(
            given if given is not None else _shipped("guard.txt"),
            suffixes,
            source if given is not None else "guard.txt",
            popular=ranked,
            popular_source=options.popular_file,
            popular_limit=options.popular_top,
            own=self.config.own_domains,
        )
        if ranked is not popular:  # the ranks that were put in are no columns of the file
            problems = [
                one._replace(column=1) if one.file == options.popular_file and one.column else one for one in problems
            ]
        self.problems += problems
        return guard

    def _protected(self, resolvers: Resolvers) -> Protected:
        """The operator's own entries are asked first, so their reason is the one that is told."""
        config = self.config
        extra = [(text, self._place(f"protected[{number}]")) for number, text in enumerate(config.protected)]
        extra += [
            (text, "own resolver, " + self._place(f"resolvers[{number}]"))
            for number, text in enumerate(config.resolvers)
        ]
        extra += resolvers.protected_entries()
        source = "special_purpose.txt"
        return self._keep(Protected.parse(_shipped(source), source, extra=extra, nat64=config.nat64_prefixes))

    def _texts(self, extra_lists: Sequence[Path], demo: bool) -> list[tuple[str, str]]:
        """(name, text) of each list once, in the order given."""
        if demo:
            return [("demo.txt", _shipped("demo.txt"))]
        texts: list[tuple[str, str]] = []
        seen: set[str] = set()
        named = self._named("lists", self.config.lists)
        named += [("", escape_path(path), path) for path in extra_lists]
        for key, name, path in named:
            real = os.path.realpath(path)
            if real in seen:
                continue
            seen.add(real)
            content = self._content(key, name, path)
            if content is not None:
                texts.append((name, content))
        return texts

    def _named(self, option: str, entries: tuple[str, ...]) -> list[tuple[str, str, Path]]:
        """(key, name, path) of the files that a list of paths and patterns names."""
        files: list[tuple[str, str, Path]] = []
        for number, entry in enumerate(entries):
            key = f"{option}[{number}]"
            if not _MAGIC.intersection(entry) or (self.base_dir / entry).exists():
                files.append((key, entry, self.base_dir / entry))
                continue
            names = sorted(glob(entry, root_dir=self.base_dir))  # noqa: PTH207  Path.glob takes no absolute pattern
            names = [name for name in names if (self.base_dir / name).is_file()]
            if not names:
                self._wrong(key, f'no file matches "{entry}"', "put one there, or take the pattern out")
            elif len(names) > MAX_FILES:
                self._wrong(key, f'"{entry}" matches {len(names)} files', f"{MAX_FILES} are taken: narrow the pattern")
            else:
                files += [(key, escape_path(name), self.base_dir / name) for name in names]
        return files

    def _given(self, key: str, name: str) -> str | None:
        """The text of a file that an option names; None when it names none, or none that can be read."""
        return self._content(key, name, self.base_dir / name) if name else None

    def _content(self, key: str, name: str, path: Path) -> str | None:
        found = _read(path, name, MAX_LIST_BYTES)
        if not isinstance(found, Problem):
            return found
        if found.line or not key:
            self.problems.append(found)
        else:  # the whole file is meant: say where it is named
            self._wrong(key, f'"{name}" {found.what}', found.advice)
        return None

    def _wrong(self, key: str, what: str, advice: str) -> None:
        line, column = self.config.places.get(key, (0, 0))
        self.problems.append(Problem(self.config.origin or "configuration", line, column, f"{key}: {what}", advice))

    def _place(self, key: str) -> str:
        line, _ = self.config.places.get(key, (0, 0))
        return f"{self.config.origin}:{line}: {key}" if line else key

    def _keep(self, parsed: tuple[Loaded, list[Problem]]) -> Loaded:
        self.problems += parsed[1]
        return parsed[0]


def rank_names(text: str) -> str:
    """A popularity list in the form `rank,name`: names alone get their rank, line for line."""
    lines = text.split("\n")
    first = next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    if not first or "," in first:
        return text
    rank = 0
    for number, line in enumerate(lines):
        name = line.strip()
        if name and name[0] != "#":
            rank += 1
            lines[number] = f"{rank},{name}"
    return "\n".join(lines)


def _network(text: str) -> tuple[bytes, int]:
    network = parse_network(text)
    if network is None:
        raise ValueError(f"no network: {text}")
    return first_address(*network), network[1]


def _shipped(name: str) -> str:
    return (SHIPPED / name).read_text(encoding="utf-8")


def _read(path: Path, name: str, limit: int) -> str | Problem:
    """The text of a file, or why it cannot be used. `name` is how the file is called in the problem."""
    try:
        if not path.is_file() and path.exists() and not str(path).startswith(_STREAMS):
            return Problem(name, 0, 0, "is not a file", "name a text file")
        with path.open("rb") as stream:
            raw = stream.read(limit + 1)
    except FileNotFoundError:
        return Problem(name, 0, 0, "does not exist", f"looked for {escape_path(path.absolute())}")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Problem(name, 0, 0, f"cannot be read: {reason}", "check the path and its permissions")
    if len(raw) > limit:
        return Problem(name, 0, 0, f"is larger than {limit >> 20} MB", "split it or take a shorter one")
    if raw.startswith((_GZIP, _ZIP)):
        return Problem(name, 0, 0, "is compressed", "unpack it first")
    if raw.startswith(_UTF16):
        return Problem(name, 0, 0, "is UTF-16 text", "save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _not_text(raw, name, error.start, f"the byte 0x{raw[error.start]:02X} is not UTF-8", "save it as UTF-8")
    zero = raw.find(0)
    if zero >= 0:
        return _not_text(raw, name, zero, "a zero byte: this is not a text file", "name a text file")
    return text


def _not_text(raw: bytes, name: str, at: int, what: str, advice: str) -> Problem:
    start = raw.rfind(b"\n", 0, at) + 1
    column = len(raw[start:at].decode("utf-8-sig" if start == 0 else "utf-8", "replace")) + 1
    return Problem(name, raw.count(b"\n", 0, at) + 1, column, what, advice)

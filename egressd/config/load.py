"""Configuration and the text files it names, from disk: a Config, and from it everything that detection needs to know.

Nothing is read in part: a file that cannot be used is left out whole and is a Problem, and the caller decides whether
it goes on. What the shipped files say stands in for a suffix list or a guard that cannot be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from egressd.config.folders import SHIPPED
from egressd.config.guard_options import SHIPPED_RANGES
from egressd.config.large_lists import Build, ListFile, Order, choose_large
from egressd.config.named_files import NamedFiles, none_was
from egressd.config.schema import Config
from egressd.config.settings import behaviour_settings, network_of
from egressd.config.sockets import wrong_sockets
from egressd.config.texts import MAX_LIST_BYTES, escape_path, read_text
from egressd.errors import ConfigError, Problem
from egressd.intel.allowances import Allowance, Allowances, parse_allowances
from egressd.intel.formats import parse_list
from egressd.intel.guard import Guard
from egressd.intel.index import Index
from egressd.intel.layered import AnyIndex, LayeredIndex
from egressd.intel.networks import NAT64_WELL_KNOWN
from egressd.intel.protected import Protected
from egressd.intel.resolvers import Resolvers
from egressd.intel.shared_ranges import SharedRange, SharedRanges, parse_shared_ranges
from egressd.model import Indicator
from egressd.names import Suffixes

if TYPE_CHECKING:  # detection takes 40 ms to import, which looking at one list does not need
    from egressd.config.policy_file import PolicyFile
    from egressd.detect.intel import Intel

SECTION_MARKS: Final = tuple(
    f"// ==={mark} {section} DOMAINS===" for section in ("ICANN", "PRIVATE") for mark in ("BEGIN", "END")
)
MAX_CONFIG_BYTES: Final = 1 << 20  # a person writes it; a large site's has some tens of kilobytes

Loaded = TypeVar("Loaded")


class LoadedList(NamedTuple):
    """A block list as it was read: its name as the user gave it, and how much of it is of use."""

    name: str
    indicators: int
    problems: int


class Ground(NamedTuple):
    """What every list is judged by."""

    suffixes: Suffixes
    guard: Guard
    resolvers: Resolvers
    protected: Protected
    problems: list[Problem]


class LoadedIntel(NamedTuple):
    """What the text files say. `demo` when no list was given and the built-in one stands in for it."""

    intel: Intel
    guard: Guard
    suffix_list: Path  # the file that the suffixes were read from
    lists: tuple[LoadedList, ...]
    allowances: int
    problems: list[Problem]
    demo: bool
    files: tuple[ListFile, ...] = ()  # block lists, then allowances, then shared ranges
    broken: frozenset[str] = frozenset()  # names of those in which something is wrong
    context: str = ""  # a digest of the texts that decide how lines are read
    policy: PolicyFile | None = None  # None: the shipped one

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
    found = read_text(path, shown, MAX_CONFIG_BYTES)
    if isinstance(found, Problem):
        raise ConfigError([found])
    from egressd.config.document import parse_config  # PyYAML takes 20 ms that a replay without a file does not need

    config, problems = parse_config(found, shown)
    problems = problems or list(wrong_sockets(config, path.parent))
    if problems:
        raise ConfigError(problems)
    return config


def load_intel(
    config: Config,
    extra_lists: Sequence[Path] = (),
    *,
    base_dir: Path,
    build: Build | None = None,
    instead: Mapping[str, Path] = MappingProxyType({}),
    without: Set[str] = frozenset(),
    was_list: Callable[[str], object] = none_was,
) -> LoadedIntel:
    """Read the shipped files and all that a configuration and the command line name. Never raises: see `problems`.
    `build` makes an index of the lists that are too long for memory; without it all are held there. It may raise.
    `instead` names other files to read for some lists and allowances, by name; those `without` are not read at all.
    `was_list` says of a name whether it was read before: a folder there is a mistake then, even by a pattern.

    Relative paths of the configuration start at `base_dir`, those of `extra_lists` at the current folder.
    """
    return _Loading(config, base_dir, instead, without, was_list).load(extra_lists, build)


def list_paths(config: Config, base_dir: Path) -> list[Path]:
    """The files that the block lists, allowances and shared ranges of a configuration are in now."""
    loading = _Loading(config, base_dir)
    return [one.path for files in (*named_files(config, base_dir), loading.range_files()) for one in files]


def named_files(config: Config, base_dir: Path) -> tuple[list[ListFile], list[ListFile]]:
    """The files that the block lists of a configuration are in now, and those of its allowances."""
    files = _Loading(config, base_dir).files
    return files.of("lists", config.lists), files.of("allow", config.allow)


def load_ground(config: Config, *, base_dir: Path) -> Ground:
    """Read what lists are judged by and none of them. Never raises: see `problems`. Paths as in `load_intel`."""
    return _Loading(config, base_dir).load_ground()


def policy_text(path: Path, shown: str) -> tuple[str, str]:
    """The text of a policy file, and its name as shown. Raises ConfigError."""
    found = read_text(path, escape_path(shown), MAX_CONFIG_BYTES)
    if isinstance(found, Problem):
        raise ConfigError([found])
    return found, escape_path(shown)


class _Loading:
    """One load: collects problems while files are read in the order in which they depend on one another."""

    def __init__(
        self,
        config: Config,
        base_dir: Path,
        instead: Mapping[str, Path] = MappingProxyType({}),
        without: Set[str] = frozenset(),
        was_list: Callable[[str], object] = none_was,
    ) -> None:
        self.config = config
        self.base_dir = base_dir
        self.files = NamedFiles(base_dir, self._wrong, instead, without, was_list)
        self.broken: set[str] = set()
        self.problems: list[Problem] = []
        self.suffix_list = SHIPPED / "public_suffix_list.dat"
        self.context = blake2b(digest_size=16)  # of the texts that decide how a list's lines are read

    def load_ground(self) -> Ground:
        """Suffixes, guard, resolvers, protected addresses."""
        suffixes = self._suffixes()
        guard = self._guard(suffixes)
        resolvers = self._keep(Resolvers.parse(_shipped("resolvers.txt"), "resolvers.txt"))
        return Ground(suffixes, guard, resolvers, self._protected(resolvers), self.problems)

    def load(self, extra_lists: Sequence[Path], build: Build | None) -> LoadedIntel:
        """The ground, lists, allowances."""
        from egressd.detect.intel import Intel

        config = self.config
        ground = self.load_ground()
        feeds = any(feed.enabled for feed in config.feeds.values())  # the daemon has them, and adds what they say
        demo = not config.lists and not extra_lists and not feeds
        files = self.files.lists(config.lists, extra_lists)
        index, lists = self._lists(files, build, ground, demo)
        allow = self.files.of("allow", config.allow)
        allowed = self._allowances(allow, ground.suffixes)
        ranges = self.range_files()
        intel = Intel(
            index, ground.suffixes, Allowances(allowed, self._nat64()), ground.protected, ground.resolvers,
            self._shared_ranges(ranges), ground.guard, behaviour_settings(config),
        )  # fmt: skip
        policy = self.policy()
        return LoadedIntel(
            intel, ground.guard, self.suffix_list, tuple(lists), len(allowed), self.problems, demo,
            (*files, *allow, *ranges), frozenset(self.broken), self.context.hexdigest(), policy,
        )  # fmt: skip

    def _lists(
        self, files: list[ListFile], build: Build | None, ground: Ground, demo: bool
    ) -> tuple[AnyIndex, list[LoadedList]]:
        """What block lists say: the long ones in an index that `build` makes, all others in memory over it."""
        indicators: list[Indicator] = []
        lists: list[LoadedList] = []
        large = choose_large(files) if build is not None else []
        built = None
        if build is not None and large:
            order = Order(tuple(large), ground.suffixes, ground.guard, ground.protected, self.context.hexdigest())
            built = build(order)
            self.problems += built.problems
            self.broken.update(name for name, (_, problems) in built.lists.items() if problems)
        for one in files:
            if built is not None and one in large:
                if one.name in built.unread:
                    self._tell(built.unread[one.name], one.key, one.name)
                else:
                    lists.append(LoadedList(one.name, *built.lists.get(one.name, (0, 0))))
                continue
            text = self._content(one)
            if text is not None:
                lists.append(self._read_list(text, one.name, ground, indicators))
        if demo:
            lists.append(self._read_list(_shipped("demo.txt"), "demo.txt", ground, indicators))
        upper = Index.build(indicators, ground.suffixes, self._nat64())
        return upper if built is None else LayeredIndex(upper, (built.lower,), ground.suffixes), lists

    def _read_list(self, text: str, name: str, ground: Ground, indicators: list[Indicator]) -> LoadedList:
        """Add what a list says to `indicators`."""
        found, problems = parse_list(text, name, ground.suffixes, ground.guard, protected=ground.protected)
        indicators += found
        self._wrong_lines(name, problems)
        return LoadedList(name, len(found), len(problems))

    def _allowances(self, files: list[ListFile], suffixes: Suffixes) -> list[Allowance]:
        allowed: list[Allowance] = []
        for one in files:
            text = self._content(one)
            if text is not None:
                found, problems = parse_allowances(text, one.name, suffixes)
                allowed += found
                self._wrong_lines(one.name, problems)
        return allowed

    def policy(self) -> PolicyFile | None:
        """The rules that `policy.file` names."""
        name = self.config.policy.file
        if not name:
            return None
        from egressd.config.policy_conditions import Known
        from egressd.config.policy_file import parse_policy

        text = self._content(ListFile("policy.file", name, self.base_dir / name), MAX_CONFIG_BYTES)
        if text is None:
            return None
        config = self.config
        known = Known(tuple(config.segments), tuple(config.tags), config.policy.block_confidence)
        return self._keep(parse_policy(text, escape_path(name), known))

    def _wrong_lines(self, name: str, problems: list[Problem]) -> None:
        self.problems += problems
        if problems:
            self.broken.add(name)

    def _suffixes(self) -> Suffixes:
        given = self._given("suffix_list", self.config.suffix_list)
        if given is not None:
            try:
                suffixes = Suffixes.parse(given, self.config.suffix_list)
                _check_whole(given, self.config.suffix_list)
                self._decides(given)
                self.suffix_list = self.base_dir / self.config.suffix_list
                return suffixes
            except ConfigError as error:
                self.problems += error.problems
        text = _shipped("suffixes.txt")
        self._decides(text)
        return Suffixes.from_grouped(text)

    def _decides(self, *texts: object) -> None:
        """These decide how lists are read."""
        for text in texts:
            raw = text.encode() if isinstance(text, str) else repr(text).encode("utf-8", "backslashreplace")
            self.context.update(b"%d:" % len(raw))
            self.context.update(raw)

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
        text = given if given is not None else _shipped("guard.txt")
        self._decides(text, popular, options.popular_file, options.popular_top, self.config.own_domains)
        guard, problems = Guard.parse(
            text,
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
        text = _shipped(source)
        self._decides(extra, config.nat64_prefixes, text)
        return self._keep(Protected.parse(text, source, extra=extra, nat64=config.nat64_prefixes))

    def range_files(self) -> list[ListFile]:
        """The files of shared ranges that the configuration names, the shipped one left out."""
        return self.files.of("guard.shared_ranges", self.config.guard.shared_ranges, SHIPPED_RANGES)

    def _shared_ranges(self, files: Sequence[ListFile]) -> SharedRanges:
        """The operator's own files first: of two lines with one network the first is told."""
        ranges: list[SharedRange] = []
        for one in files:
            text = self._content(one)
            if text is not None:
                found, problems = parse_shared_ranges(text, one.name)
                ranges += found
                self._wrong_lines(one.name, problems)
        if SHIPPED_RANGES in self.config.guard.shared_ranges:
            source = "shared_ranges.txt"
            ranges += self._keep(parse_shared_ranges(_shipped(source), source))
        return SharedRanges(ranges, self._nat64())

    def _nat64(self) -> tuple[tuple[bytes, int], ...]:
        return (NAT64_WELL_KNOWN, *(network_of(text) for text in self.config.nat64_prefixes))

    def _given(self, key: str, name: str) -> str | None:
        """The text of a file that an option names; None when it names none, or none that can be read."""
        return self._content(ListFile(key, name, self.base_dir / name)) if name else None

    def _content(self, one: ListFile, most_bytes: int = 0) -> str | None:
        found = read_text(one.path, one.name, most_bytes or MAX_LIST_BYTES)
        if not isinstance(found, Problem):
            return found
        self._tell(found, one.key, one.name)
        return None

    def _tell(self, problem: Problem, key: str, name: str) -> None:
        """A file cannot be used."""
        self.broken.add(name)
        if problem.line or not key:
            self.problems.append(problem)
        else:  # the whole file is meant: say where it is named
            self._wrong(key, f'"{name}" {problem.what}', problem.advice)

    def _wrong(self, key: str, what: str, advice: str) -> None:
        line, column = self.config.places.get(key, (0, 0))
        self.problems.append(Problem(self.config.origin or "configuration", line, column, f"{key}: {what}", advice))

    def _place(self, key: str) -> str:
        line, _ = self.config.places.get(key, (0, 0))
        return f"{self.config.origin}:{line}: {key}" if line else key

    def _keep(self, parsed: tuple[Loaded, list[Problem]]) -> Loaded:
        self.problems += parsed[1]
        return parsed[0]


def _check_whole(suffix_list: str, name: str) -> None:
    """Without the end of one, as half of a download is, names under its rules would be taken for registered domains:
    of a listed bbc.co.uk all of co.uk would be blocked. Raises ConfigError."""
    lines = set(suffix_list.splitlines())
    for mark in SECTION_MARKS:
        if mark not in lines:
            what = f'is no whole Public Suffix List: it has no line "{mark}"'
            raise ConfigError([Problem(escape_path(name), 0, 0, what, "fetch it again from publicsuffix.org")])


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


def _shipped(name: str) -> str:
    return (SHIPPED / name).read_bytes().decode()  # `read_text` goes through the text once more, for line ends

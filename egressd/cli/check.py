"""`egressd check NAME|ADDRESS|URL`: listed or not, and why."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from egressd.cli.exit_codes import FINDINGS, OK
from egressd.cli.options import SYSTEM_CONFIG, add_intel_arguments, load, take_system_config
from egressd.cli.terminal import print_json, printable
from egressd.config.load import LoadedIntel
from egressd.config.schema import Config
from egressd.config.settings import policy_settings
from egressd.plural import count
from egressd.runtime.question import Question, Verdict, judge, out_of_force, parse_question, render_verdict


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("subjects", nargs="+", metavar="NAME|ADDRESS|URL", help="what to look up; several at once")
    add_intel_arguments(parser, f"{SYSTEM_CONFIG} if there")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--exit-code", action="store_true", help="exit 10 when any is listed")


def run(args: Namespace) -> int:
    """Check each subject."""
    questions = [parse_question(subject) for subject in args.subjects]
    take_system_config(args)
    config, loaded = load(args)
    settings = policy_settings(config, loaded.policy)
    now_s = int(time.time())
    listed = False
    for number, question in enumerate(questions):
        verdict = judge(question, loaded, settings, now_s)
        listed = listed or (verdict.match is not None and not verdict.allowance)
        if args.json:
            print_json(render_verdict(verdict, config.mode))
        else:
            print(
                ("\n" if number else "") + "\n".join(describe(verdict, config.mode, loaded.demo, unread_feeds(config)))
            )
            if verdict.match is None:
                tell_out_of_force(question, loaded, now_s)
    return FINDINGS if args.exit_code and listed else OK


def tell_out_of_force(question: Question, loaded: LoadedIntel, now_s: int) -> None:
    """Who finds the line in his file wonders why it is not listed."""
    found = out_of_force(question, loaded, now_s)
    if found:
        print(f"  not in force       {printable(found)}")


def unread_feeds(config: Config) -> int:
    """How many feeds the daemon may know more from: only it has them."""
    return sum(feed.enabled for feed in config.feeds.values())


def describe(verdict: Verdict, mode: str, demo: bool, feeds: int = 0) -> list[str]:
    """The verdict for people. `feeds` is how many were not looked at."""
    match = verdict.match
    subject = printable(verdict.question.text)
    if match is None:
        lines = [f"{subject}: not listed" + (" (in the demo list; give yours with --list)" if demo else "")]
    else:
        lines = [f"{subject}: LISTED, match level {match.level}"]
    if verdict.question.name:
        domain = verdict.registered_domain or "none: the name is itself a public suffix"
        lines.append(f"  registered domain  {domain}")
        lines.append(f"  suffix rule        {verdict.suffix_rule}")
    if match is not None:
        indicator = match.indicator
        lines.append(f"  indicator          {indicator.value}")
        lines.append(f"  from               {printable(indicator.source)}:{indicator.line}")
        said = [f"confidence {indicator.confidence}"]
        said += [f"threat {printable(indicator.threat)}"] if indicator.threat else []
        said += [f"ref {printable(indicator.ref)}"] if indicator.ref else []
        lines.append(f"  says               {', '.join(said)}")
        scope = indicator.scope + (f" ({printable(indicator.narrowed)})" if indicator.narrowed else "")
        lines.append(f"  scope              {scope}")
    if verdict.guard:
        lines.append(f"  guarded            {verdict.guard}")
    if verdict.protected:
        lines.append(f"  protected          {verdict.protected}")
    if verdict.shared:
        lines.append(f"  shared             {printable(verdict.shared)}")
    if verdict.allowance:
        lines.append(f"  allowance          {printable(verdict.allowance)}")
    lines.append(f"  would              {printable(verdict.would)}")
    lines.append(f"  mode               {mode}")
    if match is None and feeds:
        lines.append(f"  not looked at      {count(feeds, 'feed')}, which the daemon has: egressd explain --live")
    return lines

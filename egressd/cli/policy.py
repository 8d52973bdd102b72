"""`egressd policy`: show the policy in force, and prove it by the examples that are kept beside it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from egressd.cli.exit_codes import FINDINGS, INVALID, OK
from egressd.cli.options import base_dir, config_of
from egressd.cli.paths import path_given
from egressd.cli.terminal import print_json, printable, span
from egressd.config.folders import SHIPPED_POLICY
from egressd.config.load import policy_text
from egressd.config.schema import Config
from egressd.plural import count

_VERBS: Final = {
    "show": "show the rules in order, with their conditions and reasons",
    "test": "run the examples that are kept beside the policy",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    verbs = parser.add_subparsers(dest="policy_verb", metavar="WHAT", required=True)
    for name, what in _VERBS.items():
        sub = verbs.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        sub.add_argument(
            "file",
            nargs="?",
            metavar="FILE",
            type=path_given,
            help="a policy (default: that of --config, or the shipped)",
        )
        sub.add_argument(
            "--config", metavar="FILE", type=path_given, help="configuration: its segments, tags and policy.file"
        )
        sub.add_argument("--json", action="store_true", help="one object a line")
        if name == "test":
            sub.add_argument("--exit-code", action="store_true", help="exit 10, not 3, when an example fails")


def run(args: Namespace) -> int:
    """Show or test it. Raises ConfigError with every problem of the file."""
    from egressd.config.policy_conditions import Known
    from egressd.config.policy_file import PolicyFile, check_policy

    config = config_of(args)
    text, shown = _text(args, config)
    known = Known(tuple(config.segments), tuple(config.tags), config.policy.block_confidence)
    policy: PolicyFile = check_policy(text, shown, known)
    return _show(policy, args.json) if args.policy_verb == "show" else _test(policy, args)


def _text(args: Namespace, config: Config) -> tuple[str, str]:
    """The policy's text, and its name as shown."""
    if args.file:
        return policy_text(Path(args.file), args.file)
    if config.policy.file:
        return policy_text(base_dir(args) / config.policy.file, config.policy.file)
    return policy_text(SHIPPED_POLICY, "policy.yaml")


def _show(policy: Any, as_json: bool) -> int:
    from egressd.detect.rules import told

    for rule in policy.rules.rules:
        conditions = [told(one) for one in rule.conditions]
        if as_json:
            record = {
                "name": rule.name, "when": conditions, "then": rule.outcome, "scope": rule.scope, "ttl_s": rule.ttl_s,
                "escalation_s": list(rule.ladder_s), "why": rule.why, "line": rule.line,
            }  # fmt: skip
            print_json(record)
            continue
        more = f", scope {rule.scope}" if rule.scope else ""
        more += f", for {span(rule.ttl_s * 1_000_000)}" if rule.ttl_s else ""
        print(printable(f"{rule.outcome:<8}{rule.name}{more}  (line {rule.line})"))
        for what, words in (("when ", "; ".join(conditions) or "anything"), ("why  ", rule.why)):
            for at, line in enumerate(wrap(printable(words), 66, break_on_hyphens=False)):
                print(f"        {what if not at else '     '}{line}")
    if not as_json:
        print("alert   no-rule\n        when no rule above applies")
    return OK


def _test(policy: Any, args: Namespace) -> int:
    from egressd.config.policy_file import check_examples

    problems = {(one.line, one.column): one for one in check_examples(policy)}
    for one in policy.examples:
        problem = problems.get((one.line, one.column))
        if args.json:
            record = {"example": one.name, "ok": problem is None, "problem": problem.what if problem else None}
            print_json(record)
        else:
            print(printable(f"ok      {one.name}" if problem is None else f"FAILED  {problem}"))
    failed = f"{count(len(problems), 'example')} of {len(policy.examples)} failed"
    print(f"egressd: {failed if problems else count(len(policy.examples), 'example') + ' ok'}", file=sys.stderr)
    if not policy.examples:
        print("egressd: no examples are kept beside this policy", file=sys.stderr)
    if problems:
        return FINDINGS if args.exit_code else INVALID
    return OK

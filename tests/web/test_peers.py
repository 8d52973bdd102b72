"""Who gets which role, and when it is looked up again."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
import threading

import pytest

from egressd.web import peers
from egressd.web.peers import Account, Credentials, Peer, Roles, find_account, peer_credentials
from egressd.web.requests import Refused, Role
from tests.loops import HANG_S

ACCOUNTS = {
    1000: Account("alice", frozenset({"staff", "netops"})),
    1001: Account("bob", frozenset({"soc"})),
    1002: Account("carol", frozenset({"soc", "netops", "chiefs"})),
    1003: Account("mallory\x1b", frozenset({"staff"})),
}


class Directory:
    """An account database that counts how often it is asked."""

    def __init__(self) -> None:
        self.accounts = dict(ACCOUNTS)
        self.asked: list[int] = []
        self.now_s = 0.0

    def find(self, uid: int) -> Account:
        self.asked.append(uid)
        return self.accounts.get(uid, Account("", frozenset()))

    def roles(self) -> Roles:
        return Roles(["soc"], ["netops"], ["chiefs"], own_uid=990, account=self.find, monotonic_s=lambda: self.now_s)


def role(roles: Roles, uid: int) -> Role | None:
    try:
        peer = asyncio.run(roles.find(Credentials(7, uid)))
    except Refused:
        return None
    finally:
        roles.close()
    assert (peer.pid, peer.uid) == (7, uid)
    return peer.role


@pytest.mark.parametrize(
    ("uid", "wanted"),
    [
        (0, Role.ADMIN),
        (990, Role.ADMIN),
        (1000, Role.OPERATOR),
        (1001, Role.VIEWER),
        (1002, Role.ADMIN),
        (1003, None),
        (4242, None),
    ],
)
def test_roles(uid: int, wanted: Role | None) -> None:
    assert role(Directory().roles(), uid) == wanted


def test_no_group_gives_no_role() -> None:
    assert role(Roles(own_uid=990, account=Directory().find), 1002) is None


def test_root_is_let_in_without_the_account_database() -> None:
    directory = Directory()
    assert role(directory.roles(), 0) == Role.ADMIN
    assert directory.asked == [990], "the daemon's own name, at the start"


def test_a_lost_group_is_a_lost_role_within_seconds() -> None:
    directory = Directory()
    roles = directory.roles()
    assert role(roles, 1000) == Role.OPERATOR
    directory.accounts[1000] = Account("alice", frozenset({"staff"}))
    directory.now_s = peers.CACHE_S
    assert role(roles, 1000) == Role.OPERATOR
    assert directory.asked == [990, 1000]
    directory.now_s = peers.CACHE_S + 0.1
    assert role(roles, 1000) is None
    assert directory.asked == [990, 1000, 1000]


def test_the_refusal_is_fit_to_print() -> None:
    with pytest.raises(Refused, match=r"user 1003 \(mallory\\x1b\) is in no group") as caught:
        asyncio.run(Directory().roles().find(Credentials(7, 1003)))
    assert caught.value.text.isprintable()


def test_the_cache_is_bounded() -> None:
    directory = Directory()

    async def many(roles: Roles) -> None:
        for uid in range(2_000, 2_000 + peers.MAX_CACHED + 10):
            with pytest.raises(Refused):
                await roles.find(Credentials(1, uid))

    roles = directory.roles()
    asyncio.run(many(roles))
    assert len(roles._cached) <= peers.MAX_CACHED


def test_an_account_database_that_hangs_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "LOOKUP_S", 0.05)
    over = threading.Event()

    def hang(uid: int) -> Account:
        if uid != 990:
            over.wait(HANG_S)
        return ACCOUNTS[1002]

    async def ask() -> Peer:
        roles = Roles(["soc"], own_uid=990, account=hang)
        try:
            with pytest.raises(Refused, match="account database does not answer"):
                await roles.find(Credentials(1, 1002))
            return await roles.find(Credentials(1, 0))
        finally:
            over.set()
            roles.close()

    assert asyncio.run(ask()).actor == "uid:root"


def test_the_system_knows_us() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert peer_credentials(left) == Credentials(os.getpid(), os.geteuid())
    account = find_account(os.geteuid())
    assert account.name == pwd.getpwuid(os.geteuid()).pw_name
    assert grp.getgrgid(pwd.getpwuid(os.geteuid()).pw_gid).gr_name in account.groups
    assert find_account(2**31 - 7) == Account("", frozenset())

"""Hashes of passwords: what they open, what they cost, and when no more are taken."""

import asyncio
import dataclasses
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from commands import passwords
from commands.passwords import Passwords
from tests.conftest import CHEAP_ARGON2


@pytest.fixture
def cheap() -> Iterator[Passwords]:
    made = Passwords(CHEAP_ARGON2)
    yield made
    made.close()


async def test_a_password_opens_its_own_hash_and_no_other(cheap: Passwords) -> None:
    hashed = await cheap.hash("correct horse")
    assert await cheap.matches("correct horse", hashed)
    assert not await cheap.matches("wrong horse", hashed)


async def test_a_password_opens_its_hash_however_the_keyboard_writes_it(cheap: Passwords) -> None:
    hashed = await cheap.hash("Jo\u0308rg's ﬁnest")
    assert await cheap.matches("Jörg's finest", hashed)


@pytest.mark.parametrize("changed", [{"time_cost": 2}, {"memory_cost": 16}, {"hash_len": 48}])
async def test_a_hash_is_weak_if_less_was_spent_on_it(cheap: Passwords, changed: dict[str, int]) -> None:
    hashed = await cheap.hash("correct horse")
    dearer = Passwords(dataclasses.replace(CHEAP_ARGON2, **changed))  # type: ignore[arg-type]  # numbers all of them
    assert not cheap.is_weak(hashed)
    assert dearer.is_weak(hashed)
    assert not cheap.is_weak(await dearer.hash("correct horse"))
    dearer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="niceness by thread")
async def test_hashing_gives_way_to_everything_else(cheap: Passwords) -> None:
    """Else a flood of log-ins makes everybody wait."""
    niceness = await cheap._run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert (niceness, os.getpriority(os.PRIO_PROCESS, 0)) == (passwords.NICENESS, 0)


async def test_without_a_hash_nothing_matches(cheap: Passwords) -> None:
    """Not even what is compared with to take the same time."""
    assert not await cheap.matches("nobody's password", None)


async def test_an_address_without_an_account_costs_as_much_as_one_that_has_one(
    cheap: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the time tells which addresses have an account."""
    verify, verified = cheap._verify, 0

    def counted(hashed: str, password: str) -> bool:
        nonlocal verified
        verified += 1
        return verify(hashed, password)

    monkeypatch.setattr(cheap, "_verify", counted)
    for hashed in (await cheap.hash("correct horse"), None):
        await cheap.matches("correct horse", hashed)
    assert verified == 2


async def test_who_comes_when_too_many_wait_is_told_so_and_the_others_are_served(cheap: Passwords) -> None:
    asked = [cheap.hash("correct horse") for _ in range(passwords.WAITING_MAX + 1)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in outcomes] == [bytes] * passwords.WAITING_MAX + [passwords.HashingOverloaded]
    assert await cheap.hash("correct horse")


async def test_hashes_cost_an_attacker_what_rfc_9106_recommends() -> None:
    made = Passwords()
    try:
        assert (await made.hash("correct horse")).startswith(b"$argon2id$v=19$m=65536,t=3,p=4$")
    finally:
        made.close()

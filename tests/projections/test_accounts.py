"""The view of accounts: who is there, by role and by what became of them."""

from uuid import UUID

from commands import privacy
from domain import accounts
from ledger import codec, ids
from projections import accounts as view
from projections import stream
from projections.accounts import AccountRow
from tests.projections.conftest import Connection, project
from tests.projections.story import Story
from tests.world import World, caller


async def found(connection: Connection, tenant_id: UUID, **which: str) -> list[AccountRow]:
    return (await view.page(connection, tenant_id, None, 100, **which)).rows


async def test_roles_and_what_became_of_accounts(
    world: World, tenant_id: UUID, projector: Connection, app: Connection, source: stream.Source
) -> None:
    """An admin looks for the affiliates, and for those who are out."""
    people = []
    for role in ("admin", "user", "affiliate", "user"):
        account = accounts.register(
            id=ids.new_id(), tenant_id=tenant_id, email=f"{ids.new_id()}@a.test", name="Ann", role=role
        )
        await world.ledger.append(caller(tenant_id), account)
        people.append(account)
    admin, promoted, out, erased = people
    promoted.rename("Ann Other")
    promoted.change_role("affiliate")
    await world.ledger.append(caller(tenant_id), promoted)
    out.deactivate()
    await world.ledger.append(caller(tenant_id), out)
    receipt = await privacy.erase(
        privacy.Erase(account_id=erased.id), caller(tenant_id), world.ledger, privacy.noted_nowhere
    )
    erased.deactivate()  # whoever is erased stays so, whatever else becomes of the account
    receipt_after = await world.ledger.append(caller(tenant_id), erased)
    assert receipt_after.position > receipt.position
    await project(projector, source, view.VIEW, Story(tenant_id, receipt_after.position), limit=1)
    rows = await found(app, tenant_id)
    assert [(row.id, row.name, row.role, row.status) for row in rows] == [
        (erased.id, codec.ERASED, "user", "erased"),
        (out.id, "Ann", "affiliate", "deactivated"),
        (promoted.id, "Ann Other", "affiliate", "active"),
        (admin.id, "Ann", "admin", "active"),
    ]
    assert [row.email for row in rows[:2]] == [codec.ERASED, out.email]
    assert [row.id for row in await found(app, tenant_id, role="affiliate")] == [out.id, promoted.id]
    assert [row.id for row in await found(app, tenant_id, status="deactivated")] == [out.id]
    assert [row.id for row in await found(app, tenant_id, role="user", status="active")] == []
    out.reactivate()
    receipt_again = await world.ledger.append(caller(tenant_id), out)
    begin = receipt_after.position
    await project(projector, source, view.VIEW, Story(tenant_id, receipt_again.position), limit=3, begin=begin)
    assert [row.id for row in await found(app, tenant_id, status="active")] == [out.id, promoted.id, admin.id]


async def test_pages_join_without_gap_or_double(
    projector: Connection, app: Connection, source: stream.Source, story: Story
) -> None:
    await project(projector, source, view.VIEW, story, limit=100)
    everybody = [row.id for row in await found(app, story.tenant_id)]
    assert len(everybody) == len(story.people) > 3
    walked, before = [], None
    while True:
        page = await view.page(app, story.tenant_id, before, 2)
        walked += [row.id for row in page.rows]
        if (before := page.next) is None:
            break
    assert walked == everybody

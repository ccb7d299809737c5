"""A rebuild beside an erasure that the view has yet to come to."""

from uuid import UUID

import pytest

from commands import privacy
from projections import comparison, generations, stream, transactions
from projections.comparison import Comparison
from projections.view import View
from tests.projections.conftest import Connection, StartProcess, project, rebuilt
from tests.projections.story import Story
from tests.world import World, caller


async def test_an_erasure_that_the_view_has_yet_to_come_to_is_no_difference(
    start_process: StartProcess,
    projector: Connection,
    source: stream.Source,
    world: World,
    story: Story,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The new rows are made without the key that is gone. An operator would look for a defect that there is not."""
    await project(projector, source, transactions.VIEW, story, limit=100)
    command = privacy.Erase(buyer_ref="17850")
    erasure = await privacy.erase(command, caller(story.tenant_id), world.ledger, privacy.noted_nowhere)
    compare, compared = comparison.compare, list[Comparison]()

    async def then_project(connection: generations.Connection, view: View, tenant_id: UUID) -> Comparison:
        compared.append(await compare(connection, view, tenant_id))
        if len(compared) == 1:
            story.position = erasure.position
            await (await start_process([transactions.VIEW])).reaches(story, [transactions.VIEW])
        return compared[-1]

    monkeypatch.setattr(comparison, "compare", then_project)
    last = await rebuilt(world, source, transactions.VIEW, story.tenant_id, compare_only=True)
    assert [each.equal for each in compared] == [False, True]
    assert (last.equal, last.position) == (True, erasure.position)

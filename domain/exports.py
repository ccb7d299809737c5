"""That data left: all that is kept of a person was handed out, or a tenant's whole stream."""

from typing import Annotated
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates
from domain.meaning import meaning


class PersonExport(aggregates.Aggregate):
    """One export of a person's data. Who asked for it is in the event's metadata."""

    TOPIC = "person_export"

    class Exported(aggregates.Aggregate.Created):
        """All that is kept of a person was handed out; recorded before, once a minute for each who asks."""

        TOPIC = "person.exported"
        account_id: Annotated[UUID, meaning("The account of the person")]

    @event(Exported)
    def __init__(self, id: UUID, account_id: UUID) -> None:
        self.account_id = account_id


class TenantExport(aggregates.Aggregate):
    """One export of the tenant's stream."""

    TOPIC = "tenant_export"

    class Exported(aggregates.Aggregate.Created):
        """The tenant's stream was written into a file; recorded before, so the file has it too."""

        TOPIC = "tenant.exported"
        with_keys: Annotated[
            bool, meaning("Whether persons' keys went along: then whoever has the passphrase reads their data")
        ]

    @event(Exported)
    def __init__(self, id: UUID, with_keys: bool) -> None:
        self.with_keys = with_keys


def export_person(*, id: UUID, account_id: UUID) -> PersonExport:
    return PersonExport(id=id, account_id=account_id)


def export_tenant(*, id: UUID, with_keys: bool) -> TenantExport:
    return TenantExport(id=id, with_keys=with_keys)

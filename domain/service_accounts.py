"""Programs that act in a tenant by themselves: what each may do, and which keys it has. A key's hash is a secret, never an event."""

from collections.abc import Collection
from typing import Annotated
from uuid import UUID

from eventsourcing.domain import event

from domain import aggregates, refusals, tenants, text
from domain.meaning import meaning

NAME_LENGTH_MAX = 100
KEYS_MAX = 2
"""At a time: the one that is used, and the one that replaces it."""

KeyId = Annotated[UUID, meaning("Which of the account's keys: part of the key, and no secret")]


class ScopeUnavailable(refusals.Invalid):
    def __init__(self, scope: str) -> None:
        super().__init__(
            "No key can be given this right, or you do not have it yourself",
            scope,
            "Give rights that you have; `bitnexus rights` lists those that a key can have",
            field="scopes",
        )


class ScopesMissing(refusals.Invalid):
    def __init__(self) -> None:
        super().__init__("The service account would have no right", "no scopes", "Give at least one", field="scopes")


class TooManyKeys(refusals.Conflict):
    def __init__(self, account_id: UUID) -> None:
        super().__init__(f"The service account has {KEYS_MAX} keys", account_id, "Revoke one of them first")


class KeyUnknown(refusals.Conflict):
    def __init__(self, key_id: UUID) -> None:
        super().__init__("The service account has no such key, or it was revoked", key_id, "Look at its keys")


class ServiceAccountClosed(refusals.Conflict):
    def __init__(self, account_id: UUID) -> None:
        super().__init__("The service account was closed", account_id, "Make a new one")


class ServiceAccount(aggregates.Aggregate):
    """A program with rights of its own. `keys`: the ids of those that are good."""

    TOPIC = "service_account"

    class Created(aggregates.Aggregate.Created):
        """A program may act in the tenant, once it has a key."""

        TOPIC = "service_account.created"
        tenant_id: tenants.TenantId
        name: Annotated[str, meaning("What it is, in the words of whoever made it")]
        scopes: Annotated[list[str], meaning("The rights that its keys have, of those of whoever made it")]
        created_by: Annotated[UUID | None, meaning("The account that made it; null: the operator")]

    class KeyIssued(aggregates.Aggregate.Event):
        """There is a key more. Only its hash is kept, and not in an event."""

        TOPIC = "service_account.key_issued"
        key_id: KeyId

    class KeyRevoked(aggregates.Aggregate.Event):
        """The key counts no more. For good."""

        TOPIC = "service_account.key_revoked"
        key_id: KeyId

    class Closed(aggregates.Aggregate.Event):
        """None of its keys counts any more, and there will be no other. For good."""

        TOPIC = "service_account.closed"

    @event(Created)
    def __init__(self, id: UUID, tenant_id: UUID, name: str, scopes: list[str], created_by: UUID | None) -> None:
        self.tenant_id = tenant_id
        self.name = name
        self.scopes = scopes
        self.created_by = created_by
        self.keys: list[UUID] = []
        self.closed = False

    def issue_key(self, key_id: UUID) -> None:
        """Raises ServiceAccountClosed, TooManyKeys."""
        if self.closed:
            raise ServiceAccountClosed(self.id)
        if len(self.keys) >= KEYS_MAX:
            raise TooManyKeys(self.id)
        self._key_issued(key_id)

    def revoke_key(self, key_id: UUID) -> None:
        """Raises KeyUnknown."""
        if key_id not in self.keys:
            raise KeyUnknown(key_id)
        self._key_revoked(key_id)

    def close(self) -> None:
        """One that is closed already records nothing."""
        if not self.closed:
            self._closed()

    @event(KeyIssued)
    def _key_issued(self, key_id: UUID) -> None:
        self.keys = [*self.keys, key_id]

    @event(KeyRevoked)
    def _key_revoked(self, key_id: UUID) -> None:
        self.keys = [each for each in self.keys if each != key_id]

    @event(Closed)
    def _closed(self) -> None:
        self.keys = []
        self.closed = True


def create(
    *, id: UUID, tenant_id: UUID, name: str, scopes: Collection[str], may_give: Collection[str], created_by: UUID | None
) -> ServiceAccount:
    """`may_give`: the rights that its maker can give. Raises ScopesMissing, ScopeUnavailable, TextBlank, TextTooLong, TextForbidden."""
    if not scopes:
        raise ScopesMissing
    for scope in scopes:
        if scope not in may_give:
            raise ScopeUnavailable(scope)
    return ServiceAccount(
        id=id,
        tenant_id=tenant_id,
        name=text.line(name, "name", length_max=NAME_LENGTH_MAX),
        scopes=sorted(set(scopes)),
        created_by=created_by,
    )

"""Topics: to which a message belongs, and who may join which. The rights are those of queries."""

from uuid import UUID

from api import errors, rights
from api.rights import Who
from api.transactions import visibility

TOPICS_MAX = 100
"""Of one stream or socket: as many as a socket of Phoenix Channels joins."""

TENANT, TRANSACTION, AFFILIATE, NOTIFICATION, ADMIN = "tenant", "transaction", "affiliate", "notification", "admin"
ADMIN_EVENTS = "admin:events"  # everything
ADMIN_TRANSACTIONS = "admin:transactions"  # every sale and refund
ADMIN_PROJECTIONS = "admin:projections"  # how far the views are

_ADMIN_RIGHTS = {
    ADMIN_EVENTS: ("products:read", "transactions:read_all"),
    ADMIN_TRANSACTIONS: ("transactions:read_all",),
    ADMIN_PROJECTIONS: ("projections:read",),
}


class TopicForbidden(Exception):
    """It is somebody else's, or asks for a right that the caller lacks."""


class TopicUnknown(Exception):
    """There is no such topic."""


def of_all_members(tenant_id: UUID) -> tuple[str, ...]:
    """What every member sees."""
    return (f"{TENANT}:{tenant_id}", ADMIN_EVENTS)


def of_parties(buyer_id: UUID | None, affiliate_id: UUID | None) -> tuple[str, ...]:
    """What buyer and affiliate see, each once."""
    mine = dict.fromkeys(f"{TRANSACTION}:{each}" for each in (buyer_id, affiliate_id) if each is not None)
    brought = () if affiliate_id is None else (f"{AFFILIATE}:{affiliate_id}",)
    return (*mine, *brought, ADMIN_TRANSACTIONS, ADMIN_EVENTS)


def seen_by(who: Who) -> tuple[str, ...]:
    """Those that together are what the caller sees by query, without overlap."""
    tenant = (f"{TENANT}:{who.tenant_id}",) if who.may("products:read") else ()
    if who.may("transactions:read_all"):
        return (*tenant, ADMIN_TRANSACTIONS)
    return (*tenant, f"{TRANSACTION}:{who.account_id}") if who.may("transactions:read") else tenant


def asked_for(who: Who, names: str) -> tuple[str, ...]:
    """From names with commas between them, each once. Raises RequestRefused, Forbidden."""
    wanted = tuple(dict.fromkeys(names.split(",")))
    if len(wanted) > TOPICS_MAX:
        text = f"{len(wanted)} topics are more than one stream takes. Ask for {TOPICS_MAX} at the most."
        raise errors.RequestRefused(errors.INVALID, text, {"topics": [text]})
    for topic in wanted:
        try:
            check(who, topic)
        except TopicForbidden:
            raise rights.Forbidden(f"The topic {topic[:100]!r} is not yours. Ask for one that you may read.") from None
        except TopicUnknown:
            text = f"There is no topic {topic[:100]!r}. docs/realtime.md has those that there are."
            raise errors.RequestRefused(errors.INVALID, text, {"topics": [text]}) from None
    return wanted


def check(who: Who, topic: str) -> None:
    """Whether the caller may join it. Raises TopicForbidden, TopicUnknown."""
    kind, _, name = topic.partition(":")
    if not who.may("feed:read"):
        raise TopicForbidden
    if kind == ADMIN:
        _check_admin(who, topic)
        return
    id = _id(name)
    if id is None:
        raise TopicForbidden
    allowed = {
        TENANT: id == who.tenant_id and who.may("products:read"),
        TRANSACTION: who.may("transactions:read") and visibility.sees(who, id, None),
        AFFILIATE: who.may("transactions:read") and visibility.sees(who, None, id),
        NOTIFICATION: id == who.account_id,
    }
    if kind not in allowed:
        raise TopicUnknown
    if not allowed[kind]:
        raise TopicForbidden


def _check_admin(who: Who, topic: str) -> None:
    rights = _ADMIN_RIGHTS.get(topic)
    if rights is None:
        # Only who is told of admins' topics at all may learn which there are not.
        raise TopicUnknown if who.may("projections:read") else TopicForbidden
    if not all(who.may(right) for right in rights):
        raise TopicForbidden


def _id(text: str) -> UUID | None:
    """None unless it is written as messages write it: a topic has one name."""
    try:
        id = UUID(text)
    except ValueError:
        return None
    return id if str(id) == text else None

"""Whose account somebody may read or act upon: one's own, and with a right that reaches further anybody's of the tenant."""

from uuid import UUID

from api.rights import Who
from ledger import errors


def sees(who: Who, account_id: UUID, right: str) -> bool:
    """`right`: the one that reaches further."""
    return who.account_id == account_id or who.may(right)


def check(who: Who, account_id: UUID, right: str) -> None:
    """Raises NotFound, as for an account that is not there: whose ids there are is nobody's business."""
    if not sees(who, account_id, right):
        raise errors.NotFound("account", account_id)

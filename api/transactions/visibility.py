"""Who sees a sale: by query, as one resource and in the feed alike."""

from uuid import UUID

from api.rights import Who


def person(who: Who) -> UUID | None:
    """Whose sales to leave in a list; None: all of the tenant's."""
    return None if who.may("transactions:read_all") else who.account_id


def sees(who: Who, buyer_id: UUID | None, affiliate_id: UUID | None) -> bool:
    """Buyer, affiliate, and who may see all; of a refund its sale's. A refund without its sale has neither."""
    return who.may("transactions:read_all") or who.account_id in (buyer_id, affiliate_id)

"""Who bought, and why money went back, in the words of whoever recorded it."""

from typing import Annotated, TypeAlias
from uuid import UUID

from domain import text
from domain.meaning import meaning
from domain.personal import Personal

BUYER_REF_LENGTH_MAX = 254  # an e-mail address is a common reference
# Recorded as ciphertext, a third wider than this.
BUYER_REF_ENCODED_BYTES_MAX = 512
REASON_LENGTH_MAX = 500

# The types of an event's fields.
BuyerId: TypeAlias = Annotated[UUID, meaning("The account of who bought, null if it is not known")]
AffiliateId: TypeAlias = Annotated[
    UUID, meaning("The account of the affiliate who brought the buyer, null if nobody did")
]
BuyerSubjectId: TypeAlias = Annotated[
    UUID, meaning("The id under whose key the buyer's reference is encrypted, null if there is no reference")
]
BuyerRef: TypeAlias = Annotated[
    Personal[str],
    meaning("Who bought, in the words of whoever recorded it, such as a customer number; null if unknown"),
]
Reason: TypeAlias = Annotated[str, meaning("Why money went back, null if nothing was said")]


def checked_buyer_ref(buyer_ref: str) -> str:
    """The reference as it is kept, and under which its subject is to be looked up: without blanks around it.

    Raises TextBlank, TextTooLong, TextTooWide, TextForbidden.
    """
    return text.line(
        buyer_ref, "buyer_ref", length_max=BUYER_REF_LENGTH_MAX, encoded_bytes_max=BUYER_REF_ENCODED_BYTES_MAX
    )


def checked_buyer(buyer_ref: str | None, buyer_subject_id: UUID | None) -> str | None:
    """As `checked_buyer_ref`; None stays None.

    ValueError if there is a reference but no subject: nobody could encrypt it, and a caller that forgets is wrong.
    """
    if buyer_ref is None:
        return None
    if buyer_subject_id is None:
        raise ValueError("A buyer's reference came without a subject: None. Pass the subject's id with it.")
    return checked_buyer_ref(buyer_ref)


def checked_reason(reason: str | None) -> str | None:
    """None and blanks are None. Raises TextTooLong, TextForbidden."""
    return text.optional_line(reason, "reason", length_max=REASON_LENGTH_MAX)

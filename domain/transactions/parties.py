"""Who bought, and why money went back, in the words of whoever recorded it."""

from uuid import UUID

from domain import text

BUYER_REF_LENGTH_MAX = 254  # an e-mail address is a common reference
# Recorded as ciphertext, a third wider than this.
BUYER_REF_ENCODED_BYTES_MAX = 512
REASON_LENGTH_MAX = 500


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

"""Sales and what is given back of them. The rules of money are in docs/money.md."""

from domain.transactions.lines import (
    LINES_MAX,
    CurrencyMixed,
    Line,
    LineCountOutOfRange,
    LineWanted,
    RefundLine,
    TotalTooHigh,
    UnmatchedLine,
    UnmatchedLineWanted,
    check_count,
)
from domain.transactions.parties import checked_buyer_ref
from domain.transactions.sale import (
    LineUnknown,
    NothingLeft,
    RefundExceeds,
    RefundMade,
    Status,
    Transaction,
    record,
)
from domain.transactions.unmatched import Refund, record_refund

__all__ = [
    "LINES_MAX",
    "CurrencyMixed",
    "Line",
    "LineCountOutOfRange",
    "LineUnknown",
    "LineWanted",
    "NothingLeft",
    "Refund",
    "RefundExceeds",
    "RefundLine",
    "RefundMade",
    "Status",
    "TotalTooHigh",
    "Transaction",
    "UnmatchedLine",
    "UnmatchedLineWanted",
    "check_count",
    "checked_buyer_ref",
    "record",
    "record_refund",
]

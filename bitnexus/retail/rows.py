"""Rows of a retail CSV file: reading them, and which of them are accepted.

A file error (RetailFileError) means that the file is not what it should be: a number that cannot be read, a column
that is not there. Nobody can say what was meant, so reading stops. A rejected row is well-formed and still neither a
sale nor a refund, or one that the ledger's rules would refuse; it is counted by reason and the rest goes on.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

import msgspec

from domain import external, instants, money, products, refusals, text, transactions

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")

LINE_BYTES_MAX = 65_536  # a real line has about 90 bytes; a file without line ends must not fill the memory
LINES_MAX = 2_000_000  # the plan is held in memory, about 0.3 kB a row
CACHED_VALUES_MAX = 4096  # neighbouring rows share dates, and a shop has few prices: parse each text once

CURRENCY = "GBP"
# In pounds, so that the total of a full sale is within the ledger's bound too.
LINE_AMOUNT_MAX = Decimal(money.to_text(money.AMOUNT_MINOR_MAX // transactions.LINES_MAX, CURRENCY))
# Every # may be doubled, and a part's number of up to 8 characters follows: together an external id of at most 128.
INVOICE_LENGTH_MAX = (external.EXTERNAL_ID_LENGTH_MAX - 8) // 2
INVOICE_ENCODED_BYTES_MAX = (external.EXTERNAL_ID_ENCODED_BYTES_MAX - 8) // 2

_DATE = re.compile(r"\d{4}-\d\d-\d\d[ T]([01]\d|2[0-3]):\d\d(:\d\d)?", re.ASCII)
_QUANTITY = re.compile(r"[+-]?\d{1,100}", re.ASCII)
_PRICE = re.compile(r"[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,2})?", re.ASCII)


class RetailFileError(Exception):
    """The file cannot be read to its end. `line_number` counts from 1, the header; None: it could not be opened."""

    def __init__(self, path: Path, line_number: int | None, what: str, value: str, remedy: str) -> None:
        self.path = path
        self.line_number = line_number
        where = str(path) if line_number is None else f"{path}, line {line_number}"
        super().__init__(f"{where}: {what}: {refusals.shown(value)}. {remedy}")


class _BadValue(ValueError):
    """What RetailFileError needs, without the place, which the parser of one value does not know."""

    def __init__(self, what: str, value: str, remedy: str) -> None:
        super().__init__(what, value, remedy)
        self.what, self.value, self.remedy = what, value, remedy


class Row(msgspec.Struct, frozen=True, gc=False):
    """One record of the file, every text without blanks around it."""

    line_number: int  # where the record begins; a quoted field may span lines
    invoice_no: str
    stock_code: str
    description: str
    quantity: int  # negative: a refund
    invoice_date: datetime  # UTC
    unit_price: Decimal  # GBP, in the ledger's written form if it can be recorded
    customer_id: str | None  # None: a guest
    country: str


class Reason(StrEnum):
    """Why a row is rejected. A row has one reason: the first that holds, in this order."""

    PRICE_NOT_POSITIVE = "price_not_positive"
    QUANTITY_ZERO = "quantity_zero"
    PRICE_TOO_LARGE = "price_too_large"
    PRICE_TOO_PRECISE = "price_too_precise"
    AMOUNT_TOO_LARGE = "amount_too_large"
    DATE_OUT_OF_RANGE = "date_out_of_range"
    INVOICE_NOT_USABLE = "invoice_not_usable"  # blank, too long or with control characters; so are the next two
    CODE_NOT_USABLE = "code_not_usable"
    CUSTOMER_NOT_USABLE = "customer_not_usable"  # a blank one is a guest and is accepted


class Reject(msgspec.Struct, frozen=True, gc=False):
    row: Row
    reason: Reason


def reason_of(row: Row) -> Reason | None:
    """Why the row is rejected; None: it is accepted, and no rule of the ledger will refuse a value of it."""
    if row.unit_price <= 0:
        return Reason.PRICE_NOT_POSITIVE
    if row.quantity == 0:
        return Reason.QUANTITY_ZERO
    bad_price = _bad_price(row.unit_price)
    if bad_price is not None:
        return bad_price
    if abs(row.quantity) * row.unit_price > LINE_AMOUNT_MAX:
        return Reason.AMOUNT_TOO_LARGE
    if not instants.EARLIEST <= row.invoice_date <= instants.LATEST:
        return Reason.DATE_OUT_OF_RANGE
    if not _is_invoice(row.invoice_no):
        return Reason.INVOICE_NOT_USABLE
    if not _is_code(row.stock_code):
        return Reason.CODE_NOT_USABLE
    if row.customer_id is not None and not _is_customer(row.customer_id):
        return Reason.CUSTOMER_NOT_USABLE
    return None


def read(path: Path) -> Iterator[Row]:
    """The rows of a CSV file (UTF-8, also with a byte order mark; gzip if its name ends in .gz), in file order.

    Columns may stand in any order, and more may be there; empty lines are skipped. Raises RetailFileError.
    """
    records = _records(path)
    header_number, header = next(records, (1, []))
    pick = _picker(path, header_number, header)
    for line_number, fields in records:
        if len(fields) != len(header):
            raise RetailFileError(
                path,
                line_number,
                f"{len(fields)} fields where the header has {len(header)}",
                ",".join(fields),
                "Complete the line, or put a field that holds commas in quotes.",
            )
        try:
            yield _row(line_number, pick(fields))
        except _BadValue as bad:
            raise RetailFileError(path, line_number, bad.what, bad.value, bad.remedy) from None


def write_rejects(path: Path, rejects: Iterable[Reject]) -> None:
    """A CSV file of the rejected rows: the file's columns, then Reason and LineNumber. Raises OSError."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, "Reason", "LineNumber"))
        writer.writerows((*_texts(reject.row), reject.reason.value, reject.row.line_number) for reject in rejects)


def _texts(row: Row) -> tuple[str, ...]:
    date = row.invoice_date.replace(tzinfo=None).isoformat(" ")
    quantity, price = str(row.quantity), f"{row.unit_price:f}"
    return (row.invoice_no, row.stock_code, row.description, quantity, date, price, row.customer_id or "", row.country)


@lru_cache(CACHED_VALUES_MAX)
def _bad_price(price: Decimal) -> Reason | None:
    try:
        money.check_unit_price(price)
    except money.PriceTooHigh:
        return Reason.PRICE_TOO_LARGE
    except money.PriceTooFine:
        return Reason.PRICE_TOO_PRECISE
    return None


@lru_cache(CACHED_VALUES_MAX)
def _is_invoice(invoice_no: str) -> bool:
    return _passes(_checked_invoice, invoice_no)


@lru_cache(CACHED_VALUES_MAX)
def _is_code(stock_code: str) -> bool:
    return _passes(products.checked_sku, stock_code)


@lru_cache(CACHED_VALUES_MAX)
def _is_customer(customer_id: str) -> bool:
    return _passes(transactions.checked_buyer_ref, customer_id)


def _checked_invoice(invoice_no: str) -> str:
    return text.line(
        invoice_no, "external_id", length_max=INVOICE_LENGTH_MAX, encoded_bytes_max=INVOICE_ENCODED_BYTES_MAX
    )


def _passes(check: Callable[[str], str], value: str) -> bool:
    """Whether the ledger's own rule takes the value as it is."""
    try:
        return check(value) == value
    except refusals.Refusal:
        return False


def _row(line_number: int, fields: tuple[str, ...]) -> Row:
    invoice_no, stock_code, description, quantity, date, price, customer_id, country = map(str.strip, fields)
    return Row(
        line_number,
        invoice_no,
        stock_code,
        description,
        _quantity(quantity),
        _date(date),
        _price(price),
        customer_id or None,
        country,
    )


@lru_cache(CACHED_VALUES_MAX)
def _quantity(written: str) -> int:
    if not _QUANTITY.fullmatch(written):
        raise _BadValue("Quantity is not a whole number", written, "Write it in digits, such as 6 or -1.")
    quantity = int(written)
    if abs(quantity) > money.QUANTITY_MAX:
        remedy = f"Correct the line; at most {money.QUANTITY_MAX} of a thing can be sold or come back."
        raise _BadValue("Quantity is too large", written, remedy)
    return quantity


@lru_cache(CACHED_VALUES_MAX)
def _date(written: str) -> datetime:
    remedy = "Write it as 2010-12-01 08:26:00."
    if not _DATE.fullmatch(written):
        raise _BadValue("InvoiceDate is not a date and time", written, remedy)
    try:
        return datetime.fromisoformat(written).replace(tzinfo=UTC)
    except ValueError:
        raise _BadValue("InvoiceDate does not exist", written, remedy) from None


@lru_cache(CACHED_VALUES_MAX)
def _price(written: str) -> Decimal:
    if not _PRICE.fullmatch(written):
        raise _BadValue("UnitPrice is not a number", written, "Write it in digits with a point, such as 3.39.")
    price = Decimal(written)
    try:
        return money.unit_price(price, CURRENCY)
    except refusals.Refusal:
        return price  # the row will be rejected, which shows the price as it was


def _picker(path: Path, line_number: int, header: list[str]) -> Callable[[list[str]], tuple[str, ...]]:
    """Takes a record's fields in the order of COLUMNS. Raises RetailFileError."""
    names = [name.strip() for name in header]
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        remedy = f"The first line must name the columns {', '.join(COLUMNS)}."
        raise RetailFileError(path, line_number, f"the header lacks {', '.join(missing)}", ",".join(names), remedy)
    doubled = [column for column in COLUMNS if names.count(column) > 1]
    if doubled:
        remedy = "Keep one column of each name."
        raise RetailFileError(path, line_number, "a column is there twice", ",".join(doubled), remedy)
    return itemgetter(*(names.index(column) for column in COLUMNS))


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each record with the number of the line where it begins, the header first. Raises RetailFileError."""
    reader = csv.reader(_lines(path), strict=True)
    line_number = 1
    try:
        for fields in reader:
            if fields:
                yield line_number, fields
            line_number = reader.line_num + 1
    except csv.Error as error:
        remedy = "Look for a quote that is not closed, or not doubled inside a quoted field."
        raise RetailFileError(path, line_number, "the line is not CSV", str(error), remedy) from None


def _lines(path: Path) -> Iterator[str]:
    """The lines with their ends, decoded one by one: a wrong byte is reported at its line. Raises RetailFileError."""
    number = 0
    try:
        with io.BufferedReader(gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            while line := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                _check_bounds(path, number, line)
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        wrong = error.object[error.start : error.end].hex()
        remedy = "Save the file as UTF-8, for instance with `iconv -f WINDOWS-1252 -t UTF-8`."
        raise RetailFileError(path, number, "the line is not UTF-8, byte", wrong, remedy) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        remedy = "Fetch the file again, or check it with `gzip -t`."
        raise RetailFileError(path, number + 1, "the gzip data are broken", str(error), remedy) from None
    except OSError as error:
        remedy = "Check the path and the right to read it."
        raise RetailFileError(
            path, number + 1 if number else None, "the file cannot be read", error.strerror or str(error), remedy
        ) from None


def _check_bounds(path: Path, number: int, line: bytes) -> None:
    if len(line) > LINE_BYTES_MAX:
        start = line[: refusals.SHOWN_LENGTH_MAX + 1].decode("utf-8", "replace")
        remedy = "Lines must end in a line feed; is this a CSV file?"
        raise RetailFileError(path, number, f"the line has more than {LINE_BYTES_MAX} bytes", start, remedy)
    if number > LINES_MAX:
        remedy = f"Split the file into parts of at most {LINES_MAX} lines, by date."
        raise RetailFileError(path, number, "the file has too many lines", f"more than {LINES_MAX}", remedy)

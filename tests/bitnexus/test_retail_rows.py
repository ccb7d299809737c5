"""Reading a retail file: what is a row, what is rejected, and what stops the import with a line number."""

import csv
import gzip
import importlib.resources
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from bitnexus.retail import rows
from bitnexus.retail.rows import Reason, Reject, RetailFileError, Row

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
LANTERN = "536365,71053,WHITE METAL LANTERN,6,2010-12-01 08:26:00,3.39,17850,United Kingdom"
LANTERN_ROW = Row(
    line_number=2,
    invoice_no="536365",
    stock_code="71053",
    description="WHITE METAL LANTERN",
    quantity=6,
    invoice_date=datetime(2010, 12, 1, 8, 26, tzinfo=UTC),
    unit_price=Decimal("3.39"),
    customer_id="17850",
    country="United Kingdom",
)

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write("line", …) makes a file of the header and these lines; write(content=b"…") one of these bytes."""

    def file(*lines: str, content: bytes | None = None, name: str = "sales.csv") -> Path:
        path = tmp_path / name
        path.write_bytes("\r\n".join((HEADER, *lines, "")).encode() if content is None else content)
        return path

    return file


def line_with(**changed: str) -> str:
    fields = dict(zip(rows.COLUMNS, LANTERN.split(","), strict=True)) | changed
    return ",".join(fields.values())


def refused(path: Path) -> RetailFileError:
    with pytest.raises(RetailFileError) as raised:
        list(rows.read(path))
    return raised.value


# Reading


def test_a_row_comes_with_its_types_and_its_line_number(write: Write) -> None:
    assert list(rows.read(write(LANTERN))) == [LANTERN_ROW]


@pytest.mark.parametrize("name", ["sales.csv.gz", "SALES.CSV.GZ"])
def test_a_gzip_file_reads_as_the_plain_one(write: Write, name: str) -> None:
    content = gzip.compress(f"{HEADER}\n{LANTERN}\n".encode())
    assert list(rows.read(write(content=content, name=name))) == [LANTERN_ROW]


def test_a_byte_order_mark_is_no_part_of_the_first_column(write: Write) -> None:
    """Spreadsheets write one; without this "InvoiceNo" would be missing."""
    assert list(rows.read(write(content=f"\ufeff{HEADER}\n{LANTERN}\n".encode()))) == [LANTERN_ROW]


def test_columns_may_stand_in_any_order_among_others(write: Write) -> None:
    content = (
        "Country,Till,CustomerID,UnitPrice,InvoiceDate,Quantity,Description,StockCode,InvoiceNo\n"
        "United Kingdom,7,17850,3.39,2010-12-01 08:26:00,6,WHITE METAL LANTERN,71053,536365\n"
    )
    assert list(rows.read(write(content=content.encode()))) == [LANTERN_ROW]


def test_blanks_around_values_mean_nothing(write: Write) -> None:
    padded = ",".join(f" {field}\t" for field in LANTERN.split(","))
    assert list(rows.read(write(padded))) == [LANTERN_ROW]


def test_a_blank_customer_is_a_guest(write: Write) -> None:
    [row] = rows.read(write(line_with(CustomerID="  ")))
    assert row.customer_id is None


def test_empty_lines_are_skipped_and_lines_in_quotes_are_counted(write: Write) -> None:
    """A row's number is that of the line where it begins, as an editor shows it."""
    path = write("", LANTERN, line_with(Description='"TWO\r\nLINES"'), LANTERN)
    assert [(row.line_number, row.description) for row in rows.read(path)] == [
        (3, "WHITE METAL LANTERN"),
        (4, "TWO\r\nLINES"),
        (6, "WHITE METAL LANTERN"),
    ]


def test_a_quoted_comma_and_a_pound_sign_are_read(write: Write) -> None:
    [row] = rows.read(write(line_with(Description='"VOUCHER, £40"')))
    assert row.description == "VOUCHER, £40"


@pytest.mark.parametrize(
    ("written", "price"),
    [("3.4", "3.40"), (".5", "0.50"), ("1e-05", "0.00001"), ("2.50000000", "2.50"), ("1E+2", "100.00")],
)
def test_a_price_has_one_form_however_it_was_written(write: Write, written: str, price: str) -> None:
    [row] = rows.read(write(line_with(UnitPrice=written)))
    assert str(row.unit_price) == price


def test_a_date_without_seconds_is_a_date(write: Write) -> None:
    assert list(rows.read(write(line_with(InvoiceDate="2010-12-01T08:26")))) == [LANTERN_ROW]


def test_dates_are_utc_wherever_the_import_runs(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sale's day must not depend on the time zone of the machine."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "America/New_York")
        time.tzset()
        [row] = rows.read(write(line_with(InvoiceDate="2010-12-01 23:59:58")))
    time.tzset()
    assert row.invoice_date == datetime(2010, 12, 1, 23, 59, 58, tzinfo=UTC)


def test_a_file_of_a_header_only_has_no_rows(write: Write) -> None:
    assert list(rows.read(write())) == []


def test_the_shipped_sample_has_5000_rows() -> None:
    with importlib.resources.as_file(importlib.resources.files("bitnexus.data")) as data:
        assert sum(1 for _ in rows.read(data / "online-retail-5000.csv.gz")) == 5000


# File errors


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Quantity": "six"}, "Quantity is not a whole number: 'six'. Write it in digits"),
        ({"Quantity": "6.5"}, "Quantity is not a whole number: '6.5'."),
        ({"Quantity": "1_000"}, "Quantity is not a whole number: '1_000'."),
        ({"Quantity": ""}, "Quantity is not a whole number: ''."),
        ({"Quantity": "1000000001"}, "Quantity is too large: '1000000001'. Correct the line"),
        ({"Quantity": "-1000000001"}, "Quantity is too large: '-1000000001'."),
        ({"Quantity": "9" * 5000}, "Quantity is not a whole number: '999"),
        ({"UnitPrice": "cheap"}, "UnitPrice is not a number: 'cheap'. Write it in digits with a point"),
        ({"UnitPrice": ""}, "UnitPrice is not a number: ''."),
        ({"UnitPrice": "NaN"}, "UnitPrice is not a number: 'NaN'."),
        ({"UnitPrice": "-Infinity"}, "UnitPrice is not a number: '-Infinity'."),
        ({"UnitPrice": "1e999999999"}, "UnitPrice is not a number: '1e999999999'."),
        ({"UnitPrice": "£3.39"}, "UnitPrice is not a number: '£3.39'."),
        ({"InvoiceDate": "12/1/2010 8:26"}, "InvoiceDate is not a date and time: '12/1/2010 8:26'. Write it as 2010"),
        ({"InvoiceDate": "2010-W48-3T08:26:00"}, "InvoiceDate is not a date and time: '2010-W48-3T08:26:00'."),
        ({"InvoiceDate": "2010-12-01T08:26+01"}, "InvoiceDate is not a date and time: '2010-12-01T08:26+01'."),
        ({"InvoiceDate": "2011-02-29 08:26:00"}, "InvoiceDate does not exist: '2011-02-29 08:26:00'."),
    ],
)
def test_a_value_that_cannot_be_read_is_reported_with_its_line(
    write: Write, changed: dict[str, str], message: str
) -> None:
    path = write(LANTERN, line_with(**changed))
    error = refused(path)
    assert error.line_number == 3
    assert str(error).startswith(f"{path}, line 3: {message}")


def test_a_missing_column_is_named(write: Write) -> None:
    path = write(content=HEADER.replace("UnitPrice,", "").replace("Country", "Land").encode())
    assert str(refused(path)).startswith(f"{path}, line 1: the header lacks UnitPrice, Country: 'InvoiceNo,StockCode")


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_lacks_all_columns(write: Write, content: bytes) -> None:
    assert "line 1: the header lacks InvoiceNo, StockCode" in str(refused(write(content=content)))


def test_a_column_that_is_there_twice_is_refused(write: Write) -> None:
    """Either of the two might be meant."""
    assert "a column is there twice: 'Quantity'" in str(refused(write(content=f"{HEADER},Quantity\n".encode())))


@pytest.mark.parametrize(
    ("line", "count"), [("536365,71053", 2), (LANTERN.replace("WHITE METAL", "WHITE,METAL"), 9)], ids=["few", "many"]
)
def test_a_line_with_too_few_or_too_many_fields_is_refused(write: Write, line: str, count: int) -> None:
    """An unquoted comma would shift the price into the quantity."""
    assert f"line 3: {count} fields where the header has 8: '536365," in str(refused(write(LANTERN, line)))


def test_a_wrong_byte_is_reported_at_its_own_line(write: Write) -> None:
    latin = f"{HEADER}\n{LANTERN}\n{LANTERN}\n".encode() + line_with(Description="£40").encode("latin-1") + b"\n"
    error = str(refused(write(content=latin)))
    assert "line 4: the line is not UTF-8, byte: 'a3'. Save the file as UTF-8" in error


def test_a_quote_that_is_not_closed_is_reported_where_it_opens(write: Write) -> None:
    """Otherwise the rest of the file would silently become one description."""
    error = str(refused(write(LANTERN, line_with(Description='"OPEN'), LANTERN, LANTERN)))
    assert "line 3: the line is not CSV: " in error


def test_an_open_quote_does_not_swallow_a_large_file(write: Write) -> None:
    path = write(line_with(Description='"OPEN'), *[LANTERN] * 5000)
    assert "line 2: the line is not CSV: 'field larger than field limit" in str(refused(path))


def test_a_gzip_file_that_ends_early_is_reported(write: Write) -> None:
    whole = gzip.compress("\n".join([HEADER, *[LANTERN] * 20_000]).encode(), compresslevel=0)
    error = refused(write(content=whole[: len(whole) // 2], name="sales.csv.gz"))
    assert "the gzip data are broken: 'Compressed file ended before" in str(error)
    assert error.line_number is not None
    assert error.line_number > 1000


def test_a_changed_byte_in_a_gzip_file_is_reported(write: Write) -> None:
    broken = bytearray(gzip.compress(f"{HEADER}\n{LANTERN}\n".encode()))
    broken[-6] ^= 1  # of the checksum
    assert "the gzip data are broken: 'CRC check failed" in str(refused(write(content=bytes(broken), name="s.csv.gz")))


def test_a_plain_file_under_a_gzip_name_is_reported(write: Write) -> None:
    error = str(refused(write(LANTERN, name="sales.csv.gz")))
    assert "line 1: the gzip data are broken: \"Not a gzipped file (b'In')\"" in error


def test_a_file_that_is_not_there_is_reported_without_a_line(tmp_path: Path) -> None:
    error = refused(tmp_path / "absent.csv")
    assert error.line_number is None
    assert str(error) == (
        f"{tmp_path / 'absent.csv'}: the file cannot be read: 'No such file or directory'. "
        "Check the path and the right to read it."
    )


def test_a_line_without_end_does_not_fill_the_memory(write: Write) -> None:
    error = str(refused(write(LANTERN, "x" * (rows.LINE_BYTES_MAX + 1))))
    assert f"line 3: the line has more than {rows.LINE_BYTES_MAX} bytes: 'xxx" in error
    assert len(error) < 500


def test_a_file_with_too_many_lines_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LINES_MAX", 3)
    assert len(list(rows.read(write(LANTERN, LANTERN)))) == 2
    assert "line 4: the file has too many lines: 'more than 3'. Split" in str(refused(write(LANTERN, LANTERN, LANTERN)))


# Acceptance


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"Quantity": "-6"}, None),
        ({"UnitPrice": "0.001"}, None),
        ({"CustomerID": ""}, None),
        ({"Description": "", "Country": ""}, None),
        ({"UnitPrice": "0.0"}, Reason.PRICE_NOT_POSITIVE),
        ({"UnitPrice": "-11062.06"}, Reason.PRICE_NOT_POSITIVE),
        ({"Quantity": "0"}, Reason.QUANTITY_ZERO),
        ({"UnitPrice": "0", "Quantity": "0", "StockCode": ""}, Reason.PRICE_NOT_POSITIVE),
        ({"Quantity": "0", "StockCode": ""}, Reason.QUANTITY_ZERO),
        ({"UnitPrice": "1000000000"}, None),
        ({"UnitPrice": "1000000000.01"}, Reason.PRICE_TOO_LARGE),
        ({"UnitPrice": "1e99"}, Reason.PRICE_TOO_LARGE),
        ({"UnitPrice": "0.000001"}, None),
        ({"UnitPrice": "0.0000001"}, Reason.PRICE_TOO_PRECISE),
        ({"UnitPrice": "1000000000", "Quantity": "1000"}, Reason.AMOUNT_TOO_LARGE),
        ({"UnitPrice": "1000000000", "Quantity": "-1000"}, Reason.AMOUNT_TOO_LARGE),
        ({"InvoiceDate": "0212-12-01 08:26:00"}, Reason.DATE_OUT_OF_RANGE),
        ({"InvoiceDate": "2200-01-01 00:00:00"}, Reason.DATE_OUT_OF_RANGE),
        ({"InvoiceNo": ""}, Reason.INVOICE_NOT_USABLE),
        ({"InvoiceNo": "#" * 60}, None),
        ({"InvoiceNo": "5" * 61}, Reason.INVOICE_NOT_USABLE),
        ({"InvoiceNo": "536\x1f365"}, Reason.INVOICE_NOT_USABLE),
        ({"StockCode": ""}, Reason.CODE_NOT_USABLE),
        ({"StockCode": "7" * 64}, None),
        ({"StockCode": "7" * 65}, Reason.CODE_NOT_USABLE),
        ({"StockCode": "71\x00053"}, Reason.CODE_NOT_USABLE),
        ({"CustomerID": "1" * 254}, None),
        ({"CustomerID": "1" * 255}, Reason.CUSTOMER_NOT_USABLE),
        ({"CustomerID": "178\x0050"}, Reason.CUSTOMER_NOT_USABLE),
    ],
)
def test_a_row_is_rejected_for_the_first_reason_that_holds(
    write: Write, changed: dict[str, str], reason: Reason | None
) -> None:
    """A value that the ledger would refuse is found here, not in the middle of an import."""
    [row] = rows.read(write(line_with(**changed)))
    assert rows.reason_of(row) is reason


def test_rejects_are_written_as_a_file_that_can_be_corrected_and_read_again(write: Write, tmp_path: Path) -> None:
    free = line_with(UnitPrice="0.0", Description='"FREE, £0"', CustomerID="")
    path = tmp_path / "rejects.csv"
    [row] = rows.read(write(free))

    rows.write_rejects(path, [Reject(row, Reason.PRICE_NOT_POSITIVE)])

    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {
                "InvoiceNo": "536365",
                "StockCode": "71053",
                "Description": "FREE, £0",
                "Quantity": "6",
                "InvoiceDate": "2010-12-01 08:26:00",
                "UnitPrice": "0.00",
                "CustomerID": "",
                "Country": "United Kingdom",
                "Reason": "price_not_positive",
                "LineNumber": "2",
            }
        ]
    assert list(rows.read(path)) == [row]

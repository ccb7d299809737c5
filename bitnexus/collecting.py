"""How often Python looks for garbage cycles in a process that decodes streams."""

import gc

ALLOCATIONS = 50_000
"""Objects made more than let go, after which the youngest are looked through (Python's own 700 is a batch of 70 events). What a
batch makes goes by reference counts; walking through it while it lives took half of a projector's time, 31 µs a sale instead of 15.
A cycle waits the longer: at 500 bytes an object about 25 MB of them. Requests are answered no faster by it."""


def settled() -> None:
    """What there is now stays for good and is not looked through again: call it when start-up is over."""
    gc.collect()
    gc.freeze()


def seldom() -> None:
    """As `settled`, and from here on garbage is looked for seldom."""
    settled()
    gc.set_threshold(ALLOCATIONS, 10, 10)

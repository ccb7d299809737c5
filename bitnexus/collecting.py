"""How often Python looks for garbage cycles in a process that serves or projects."""

import gc

ALLOCATIONS = 50_000
"""Objects made more than let go, after which the youngest are looked through (Python's own 700 is a batch of 70 events). What a
batch or a request makes goes by reference counts; walking through it while it lives took half of a projector's time, 31 µs a sale
instead of 15, and of a server that is sold to 4 % of its time. A cycle waits the longer: at 500 bytes an object about 25 MB of
them; after 100,000 commands a worker was no larger."""


def seldom() -> None:
    """What there is now stays for good and is not looked through again, and garbage is looked for seldom: call it when start-up is
    over."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 10, 10)

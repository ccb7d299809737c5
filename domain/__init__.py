"""Facts and rules of the marketplace: aggregates, their events, money. Pure: no I/O, no clock, no randomness."""

"""The test cases that the `eventsourcing` package ships, unchanged.

They import its cipher made of pycryptodome, which nothing else here needs. Without that package its other cipher, made of
`cryptography` and of the same interface, stands in under that name.
"""

import sys
from importlib import util

from eventsourcing import cryptography

if util.find_spec("Crypto") is None:
    sys.modules.setdefault("eventsourcing.cipher", cryptography)

from eventsourcing.tests import application, persistence, projection

__all__ = ["application", "persistence", "projection"]

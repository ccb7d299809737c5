"""Every route asked by everybody, compared with rights_table.txt: who reviews a change of rights reads its diff.

`REWRITE=1 python -m pytest tests/api/test_rights_table.py` writes the table anew.
"""

import os
from pathlib import Path

from api import rights
from tests.api import walk
from tests.api.house import House, Served
from tests.world import World

TABLE = Path(__file__).with_name("rights_table.txt")
REWRITE = "Who may do what is not as in tests/api/rights_table.txt. If it should be: REWRITE=1 pytest " + __name__


async def test_everybody_gets_of_every_route_what_the_table_says(
    world: World, served: Served, a: House, b: House
) -> None:
    """Somebody could suddenly read or change what is another's."""
    stage = walk.Stage(world, served, a, b)
    await stage.open()
    rows = {}
    for name, handler in sorted(rights.declared(served.app).items(), key=lambda found: not found[0].startswith("GET")):
        if not name.startswith("WEBSOCKET"):  # a socket has topics, which have a test of their own
            rows[name] = (walk.right_shown(handler), await stage.row(name, handler))  # queries before commands
    found = walk.table(dict(sorted(rows.items(), key=lambda row: row[0].split(" ")[::-1])))
    if os.environ.get("REWRITE"):
        TABLE.write_text(found)
    assert found.splitlines() == TABLE.read_text().splitlines(), REWRITE

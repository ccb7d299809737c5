"""`rights`."""

from argparse import Namespace

from api import roles
from bitnexus import cli
from bitnexus.cli.output import Output, table
from bitnexus.settings import Settings
from domain.accounts import Role


def show(arguments: Namespace, settings: Settings, output: Output) -> int:
    """Of the code, not of an installation: nothing is opened."""
    document = [
        {
            "right": right.name,
            "may": right.meaning,
            "roles": [role for role in Role if role in right.roles],
            "scope": right.scope,
        }
        for right in roles.TABLE
    ]
    shown = table("right", *Role, "API key", "whoever has it may")
    for right in roles.TABLE:
        has = ["yes" if role in right.roles else "" for role in Role]
        shown.add_row(right.name, *has, "yes" if right.scope else "", right.meaning)
    output.result({"rights": document}, shown)
    return cli.GOOD

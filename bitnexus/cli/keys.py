"""`keys rotate` and `keys rotate-signing`."""

from argparse import Namespace

from bitnexus import cli, installation, process, rotation
from bitnexus.cli import loop
from bitnexus.cli.output import Output, table
from bitnexus.settings import Settings
from commands import rotations
from domain.rotations import Rotated
from ledger import token_keys


def rotate(arguments: Namespace, settings: Settings, output: Output) -> int:
    with installation.opened(settings, output.say, migrate=True) as base, output.progress() as bars:
        assert base.owner_url is not None  # or `migrate` had refused
        loop.run(_recorded(base, Rotated.PERSONS, base.master.id))
        done = rotation.rotate(
            base.owner_url, base.master, lambda rewrapped, total: bars.move("keys", rewrapped, total)
        )
    document = {
        "key": base.master.id,
        "rewrapped": done.rewrapped,
        "needed": done.needed,
        "not_needed": done.not_needed,
    }
    made = table("newest key", "wrapped again", "still needed", "no longer needed", right=("wrapped again",))
    made.add_row(base.master.id, f"{done.rewrapped:,}", ", ".join(done.needed), ", ".join(done.not_needed) or "none")
    output.result(document, made)
    return cli.GOOD


def rotate_signing(arguments: Namespace, settings: Settings, output: Output) -> int:
    with installation.opened(settings, output.say, migrate=True) as base:
        assert base.owner_url is not None  # or `migrate` had refused
        new = token_keys.new(base.master)
        loop.run(_recorded(base, Rotated.TOKENS, new.id, at_once=arguments.at_once))
        keys = rotation.rotate_signing(base.owner_url, new, at_once=arguments.at_once)
    made = table("key", "signs", "verifies")
    for key in keys:
        signs = (
            f"in {key.signs_in_s:,} s"
            if key.signs_in_s > 0
            else "now"
            if key is keys[-1]
            else "until the next one does"
        )
        verifies = "until another one is made" if key.verifies_s is None else f"for {key.verifies_s:,} s more"
        made.add_row(key.id, signs, verifies)
    output.result({"keys": keys}, made)
    return cli.GOOD


async def _recorded(base: installation.Installation, of: Rotated, key_id: str, *, at_once: bool = False) -> None:
    """In the platform's stream, before it is done: a rotation that nobody hears of would be an attacker's."""
    async with process.running(base, projecting=False) as parts:
        await rotations.record(of, key_id, parts.ledger, at_once=at_once)

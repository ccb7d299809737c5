"""A master key that is lost or wrong: `serve` refuses to start and says which one it misses; with the right one all is as before."""

from pathlib import Path

from psycopg import conninfo

from bitnexus import database as connections
from bitnexus import keyfile
from bitnexus.embedded import Embedded
from ledger.keys import MasterKey
from migrations import runner
from tests.bitnexus import test_serve
from tests.bitnexus.commandline import CommandLine
from tests.faults.site import Site

REFUSAL_S_MAX = 30.0
"""It takes a second; a process that serves instead is ended then."""
OTHER_KEY = MasterKey.generate()
OTHER = MasterKey.parse(OTHER_KEY)


def refused(bitnexus: CommandLine) -> str:
    """What it says. It ends by itself, and does not serve before."""
    process = bitnexus.start("serve", "--port", 0)
    try:
        said, complained = process.communicate(timeout=REFUSAL_S_MAX)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, said) == (2, "")
    assert "Traceback" not in complained
    return complained


async def assert_serves(bitnexus: CommandLine, tmp_path: Path) -> None:
    """Somebody whose name is ciphertext logs in."""
    async with Site(bitnexus, tmp_path / "serve.log") as site:
        assert test_serve.log_in(site.url)


async def test_a_lost_key_file_is_named_and_no_new_key_takes_its_place(bitnexus: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "data" / keyfile.NAME
    lost = MasterKey.parse(path.read_text())
    path.rename(tmp_path / "elsewhere")
    complaint = refused(bitnexus)
    assert f"the database needs the key with the id {lost.id}" in complaint
    assert str(path) in complaint
    assert not path.exists()
    (tmp_path / "elsewhere").rename(path)
    await assert_serves(bitnexus, tmp_path)


async def test_a_wrong_key_file_is_refused_and_the_right_one_named(bitnexus: CommandLine, tmp_path: Path) -> None:
    """Of another installation, say."""
    path = tmp_path / "data" / keyfile.NAME
    right = path.read_text()
    path.write_text(OTHER_KEY)
    complaint = refused(bitnexus)
    assert (
        f"it needs the key with the id {MasterKey.parse(right).id}, and the one given has the id {OTHER.id}"
        in complaint
    )
    assert OTHER_KEY not in complaint
    path.write_text(right)
    await assert_serves(bitnexus, tmp_path)


async def test_a_key_that_was_forgotten_after_a_rotation_is_named(bitnexus: CommandLine, tmp_path: Path) -> None:
    """Either of the two: people are under the newer one, the rest is under the older one."""
    older = (tmp_path / "data" / keyfile.NAME).read_text().strip()
    both = CommandLine(**bitnexus.environment, BITNEXUS_MASTER_KEY=f"{OTHER_KEY},{older}")
    assert both.good("keys", "rotate")
    for kept, missing in ((older, OTHER), (OTHER_KEY, MasterKey.parse(older))):
        complaint = refused(CommandLine(**bitnexus.environment, BITNEXUS_MASTER_KEY=kept))
        assert f"it needs the key with the id {missing.id}" in complaint
    await assert_serves(both, tmp_path)


async def test_a_wrong_key_of_a_node_without_the_owners_password_is_named(
    bitnexus: CommandLine, embedded: Embedded, tmp_path: Path
) -> None:
    """The login role's password follows from it: the database tells this node nothing, so the key that was given is named."""
    right = (tmp_path / "data" / keyfile.NAME).read_text().strip()
    nobody = conninfo.make_conninfo(embedded.owner_url, user="nobody_at_all")
    node = CommandLine(DATABASE_URL=nobody, BITNEXUS_MASTER_KEY=right)
    complaint = refused(CommandLine(**node.environment | {"BITNEXUS_MASTER_KEY": OTHER_KEY}))
    assert "it lacks the login role or its password" in complaint
    assert f"the one given has the id {OTHER.id}" in complaint
    await assert_serves(node, tmp_path)


async def test_a_wrong_key_of_a_node_with_a_login_of_its_own_is_named(
    bitnexus: CommandLine, embedded: Embedded, tmp_path: Path
) -> None:
    """DATABASE_APP_URL brings the password: such a node gets into the database with any key."""
    right = (tmp_path / "data" / keyfile.NAME).read_text().strip()
    master = MasterKey.parse(right)
    app_url = runner.login_url(embedded.owner_url, connections.login_password(master))
    node = CommandLine(DATABASE_APP_URL=app_url, BITNEXUS_MASTER_KEY=right)
    complaint = refused(CommandLine(**node.environment | {"BITNEXUS_MASTER_KEY": OTHER_KEY}))
    assert f"it needs the key with the id {master.id}, and the one given has the id {OTHER.id}" in complaint
    await assert_serves(node, tmp_path)

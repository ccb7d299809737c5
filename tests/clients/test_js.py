"""clients/js, the TypeScript client: it fits the API, misses nothing over restarts, and is packed without what nobody needs."""

import asyncio
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.bitnexus import commandline
from tests.clients.conftest import Shop
from tests.world import Database

PACKAGE = Path(__file__).parents[2] / "clients" / "js"
TIMEOUT_S = 300
LIVE = PACKAGE.parents[1] / "api" / "live" / "client"
SCHEMA = "clients/js/src/schema.ts"
REWRITE = f"{SCHEMA} is not of what it is made from. To make it anew: REWRITE=1 pytest {__name__}"


def run(*words: str, **environment: str) -> str:
    """Standard output of a command in the package's folder, which has to succeed."""
    return run_in(PACKAGE, *words, **environment)


def run_in(folder: Path, *words: str, **environment: str) -> str:
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{words}:\n{done.stdout[-8_000:]}{done.stderr[-4_000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(_packages: None) -> None:
    """As package-lock.json says, installed once, and compiled."""
    stamp, lock = PACKAGE / "node_modules" / ".package-lock.json", PACKAGE / "package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        run("npm", "ci", "--no-audit", "--no-fund")
    shutil.rmtree(PACKAGE / "dist", ignore_errors=True)
    run("npm", "run", "build")


async def test_the_types_are_those_of_the_api(built: None, shop: Shop, tmp_path: Path) -> None:
    """A field that was renamed would be found by a page's user, not by its compiler."""
    async with httpx.AsyncClient(base_url=shop.site.url, trust_env=False, timeout=TIMEOUT_S) as client:
        document = (await client.get("/schema/openapi.json")).json()
    document["info"]["version"] = ""
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    made = tmp_path / "schema.ts"
    await asyncio.to_thread(run, "npm", "run", "types", "--", str(tmp_path / "openapi.json"), "--output", str(made))
    checked_in = PACKAGE / "src" / "schema.ts"
    if os.environ.get("REWRITE"):
        shutil.copyfile(made, checked_in)
    assert made.read_text() == checked_in.read_text(), REWRITE


def test_it_does_against_a_real_server_what_it_promises(built: None, database: Database) -> None:
    """Its own tests, which start, stop and kill `bitnexus serve`."""
    bitnexus = commandline.on(database)
    credentials = {"email": "admin@shop.example", "password": "correct horse", "tenant": "shop"}
    root = str(PACKAGE.parents[1])
    environment = {**bitnexus.environment, "PYTHONPATH": root, "NO_PROXY": "127.0.0.1"}
    told = run(
        *("node", "--test", "--test-reporter=tap", "test/feed.test.js", "test/refresh.test.js", "test/serve.test.js"),
        **environment,
        SERVE=json.dumps(commandline.COMMAND),
        CREDENTIALS=json.dumps(credentials),
    )
    assert "# fail 0" in told, told
    assert "# pass 14" in told, told


def test_the_page_of_the_demo_has_the_client_as_it_is(built: None) -> None:
    """It is served compiled: whoever runs a demo has no compiler."""
    for checked_in in sorted(LIVE.glob("*.js")):
        made = PACKAGE / "dist" / checked_in.name
        if os.environ.get("REWRITE"):
            shutil.copyfile(made, checked_in)
        assert made.read_text() == checked_in.read_text(), REWRITE.replace(SCHEMA, str(checked_in))


def test_what_is_packed_is_what_is_needed(built: None) -> None:
    """Neither tests nor sources nor what is installed to build it."""
    (packed,) = json.loads(run("npm", "pack", "--dry-run", "--json", "--ignore-scripts"))
    names = {each["path"] for each in packed["files"]}
    modules = {path.stem for path in (PACKAGE / "src").glob("*.ts")}
    assert names == {"package.json", "README.md"} | {
        f"dist/{each}{end}" for each in modules for end in (".js", ".d.ts")
    }
    assert packed["name"] == "@bitnexus/client"


def test_the_lock_names_no_registry() -> None:
    """Whoever installs it does so from where they always do."""
    lock = (PACKAGE / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert "http" not in json.dumps([each.get("version") for each in json.loads(lock)["packages"].values()])


def test_the_page_of_the_documentation_compiles_with_the_packed_package(built: None, tmp_path: Path) -> None:
    """Whoever copies it begins with what works: with what `npm pack` made, in a folder that has nothing else of ours."""
    run("npm", "pack", "--ignore-scripts", "--pack-destination", str(tmp_path))
    (packed,) = tmp_path.glob("*.tgz")
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    run_in(tmp_path, "npm", "install", "--offline", "--no-audit", "--no-fund", f"./{packed.name}")
    imported = 'import("@bitnexus/client").then(({ Client }) => console.log(typeof Client))'
    assert run_in(tmp_path, "node", "--eval", imported) == "function\n"
    found = re.findall(r"```tsx\n// (\S+)\n(.*?)```", (PACKAGE.parents[1] / "docs" / "react.md").read_text(), re.DOTALL)
    assert [name for name, _ in found] == ["useFeed.ts", "Sales.tsx", "main.tsx"]
    for name, text in found:
        (tmp_path / name).write_text(text)
    react = str(PACKAGE / "node_modules" / "@types" / "react")
    paths = {"react": [react], "react/*": [f"{react}/*"]}
    options = {
        "target": "ES2022",
        "module": "ESNext",
        "moduleResolution": "bundler",
        "jsx": "react-jsx",
        "strict": True,
    }
    settings = {"compilerOptions": {**options, "noEmit": True, "types": [], "paths": paths}}
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings))
    run("npm", "exec", "--", "tsc", "-p", str(tmp_path))

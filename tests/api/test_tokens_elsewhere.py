"""The sample of docs/tokens.md: a service in Node checks our tokens by the published keys."""

import asyncio
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import ids, token_keys
from tests.api.house import AUDIENCE, ISSUER, SEED, House, Served, access_tokens, listening

DOCUMENT = Path(__file__).parents[2] / "docs/tokens.md"
JOSE = "jose@6.2.17"
INSTALL_S_MAX = 120
ASK = """
import { whoIs } from "./whois.mjs";
const answers = [];
for (const token of JSON.parse(process.env.TOKENS)) {
  try { answers.push(await whoIs(token)); } catch (error) { answers.push(error.code); }
}
console.log(JSON.stringify(answers));
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A folder with the sample, and what it imports. Skipped where that cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("THE SAMPLE FOR NODE IN docs/tokens.md WAS NOT RUN: there is no node or no npm here")
    (sample,) = re.findall(r"^```js\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "whois.mjs").write_text(sample)
    (tmp_path / "ask.mjs").write_text(ASK)
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(tmp_path), JOSE]
    try:
        done = subprocess.run(install, capture_output=True, text=True, timeout=INSTALL_S_MAX, check=False, cwd=tmp_path)
    except subprocess.TimeoutExpired:
        pytest.skip(f"THE SAMPLE FOR NODE IN docs/tokens.md WAS NOT RUN: npm did not get {JOSE} in {INSTALL_S_MAX} s")
    if done.returncode != 0:
        pytest.skip(f"THE SAMPLE FOR NODE IN docs/tokens.md WAS NOT RUN: npm did not get {JOSE}: {done.stderr[-200:]}")
    return tmp_path


async def test_a_service_in_node_believes_our_tokens_and_no_others(service: Path, served: Served, a: House) -> None:
    now = int(time.time())
    made = access_tokens()
    good = made.issue(tenant_id=a.id, account_id=a.user.id, role="user", session_id=ids.new_id())
    claims = jwt.decode(good, options={"verify_signature": False})
    key = token_keys.of_seed(SEED)

    def signed(private: Ed25519PrivateKey = key.private, **changes: object) -> str:
        return jwt.encode({**claims, **changes}, private, algorithm="EdDSA", headers={"kid": key.id})

    tokens = [
        good,
        signed(Ed25519PrivateKey.from_private_bytes(b"m" * 32)),
        signed(iss="another"),
        signed(aud="another"),
        signed(exp=now - 1),
    ]
    async with listening(served.app, served.parts) as address:
        environment = {
            "PATH": str(Path(shutil.which("node") or "").parent),
            "TOKENS": json.dumps(tokens),
            "BITNEXUS_URL": address,
            "BITNEXUS_TOKEN_ISSUER": ISSUER,
            "BITNEXUS_TOKEN_AUDIENCE": AUDIENCE,
        }
        asking = await asyncio.create_subprocess_exec(
            "node", str(service / "ask.mjs"), cwd=service, env=environment, stdout=subprocess.PIPE
        )
        printed, _ = await asking.communicate()
    assert json.loads(printed) == [
        {"account": str(a.user.id), "tenant": str(a.id), "role": "user"},
        "ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
        "ERR_JWT_CLAIM_VALIDATION_FAILED",
        "ERR_JWT_CLAIM_VALIDATION_FAILED",
        "ERR_JWT_EXPIRED",
    ]

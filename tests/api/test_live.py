"""The page at /live, as it is served; tests/clients/test_live_page.py looks at it in a browser."""

import re

from api.live import page
from tests.api.house import Served


async def test_its_files_come_with_a_policy_that_keeps_what_is_typed(served: Served) -> None:
    """Nothing is loaded from elsewhere or sent there, no frame shows it, and an address names its page to nobody."""
    for path, (_, media_type) in page.FILES.items():
        answer = await served.client.get((page.PATH + path).rstrip("/"))
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].partition(";")[0] == media_type
        policy = dict(each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
        assert {policy["script-src"], policy["style-src"], policy["connect-src"]} == {"'self'"}
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_all_that_it_names_is_there_and_nothing_is_inline(served: Served) -> None:
    """The policy forbids what is inline: it would be missing without a word."""
    html = (await served.client.get(page.PATH)).text
    named = set(re.findall(r'(?:src|href)="(/[^"]*)"', html))
    for script in (path for path in page.FILES if path.endswith(".js")):
        text = (await served.client.get(page.PATH + script)).text
        folder = page.PATH + "/"
        named |= {each.replace("./", folder) for each in re.findall(r'^import .* from "([^"]+)"', text, re.MULTILINE)}
    assert {f"{page.PATH}{path}" for path in page.FILES if path != "/"} == named
    assert not re.search(r"<style|\sstyle=|<script[^>]*>[^<]|\son\w+=", html)

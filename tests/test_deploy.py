"""The image and the compose file say what they should. Nothing here starts a container: that needs an engine."""

import base64
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from bitnexus import settings
from deploy import runtime_requirements

ROOT = Path(__file__).parents[1]
KEYWORDS = frozenset(
    {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "ADD", "RUN", "USER", "EXPOSE", "VOLUME", "LABEL", "STOPSIGNAL"}
    | {"HEALTHCHECK", "ENTRYPOINT", "CMD"}
)
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY$")
OPTIONAL = "${BITNEXUS_METRICS_TOKEN:-}"
REQUIRED = re.compile(r"\$\{([A-Z_]+):\?[^}]+\}")


class Instruction(NamedTuple):
    keyword: str
    value: str


def instructions(dockerfile: str) -> list[Instruction]:
    """The instructions in order, continued lines joined and comments dropped. Raises ValueError on an unknown keyword."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if lines[-1].endswith("\\"):
        raise ValueError(f"The last line continues into nothing: {lines[-1]!r}. Take its backslash away.")
    found = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, _, value = line.partition(" ")
        if keyword not in KEYWORDS or not value.strip():
            raise ValueError(f"Not an instruction: {line!r}. Begin it with one of {sorted(KEYWORDS)}, and say what.")
        found.append(Instruction(keyword, " ".join(value.split())))
    return found


def stages(dockerfile: str) -> list[list[Instruction]]:
    """The instructions of each stage, its FROM first; what stands before the first FROM belongs to none."""
    found: list[list[Instruction]] = []
    for instruction in instructions(dockerfile):
        if instruction.keyword == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def of(stage: list[Instruction], keyword: str) -> list[str]:
    return [instruction.value for instruction in stage if instruction.keyword == keyword]


def copied_from_checkout() -> list[str]:
    """The sources of every COPY that does not take from another stage."""
    copies = [value.split() for stage in stages((ROOT / "Dockerfile").read_text()) for value in of(stage, "COPY")]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


@pytest.fixture(scope="module")
def image() -> list[Instruction]:
    """The stage that becomes the image."""
    return stages((ROOT / "Dockerfile").read_text())[-1]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed = yaml.safe_load((ROOT / "compose.yml").read_text())
    assert isinstance(parsed, dict)
    return parsed


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


@pytest.fixture(scope="module")
def balancer() -> list[str]:
    """The lines of haproxy.cfg without comments, white space as one blank."""
    lines = (re.sub(r"(^|\s)#.*", "", line) for line in (ROOT / "deploy/haproxy.cfg").read_text().splitlines())
    return [" ".join(line.split()) for line in lines if line.strip()]


def is_one_shot(service: dict[str, Any]) -> bool:
    return bool(service.get("restart") == "no")


# The image


def test_a_dockerfile_that_no_builder_would_take_is_seen() -> None:
    """The checks below would otherwise pass over a misspelt line."""
    with pytest.raises(ValueError, match="Not an instruction"):
        instructions("FROM scratch\nCOPPY a b\n")
    with pytest.raises(ValueError, match="continues into nothing"):
        instructions("FROM scratch\nRUN a \\\n")
    assert instructions("FROM a\n# why\nRUN b \\\n  # why\n  && c\n") == [("FROM", "a"), ("RUN", "b && c")]


def test_the_image_runs_as_somebody_who_is_not_root(image: list[Instruction]) -> None:
    """A hole in the process would be a hole with root's rights. A number, so that an orchestrator can check it."""
    uid, _, gid = of(image, "USER")[-1].partition(":")
    assert int(uid) > 0
    assert int(gid) > 0


def test_the_image_says_itself_whether_it_is_healthy(image: list[Instruction]) -> None:
    (check,) = of(image, "HEALTHCHECK")
    options, _, command = check.partition(" CMD ")
    assert {option.partition("=")[0] for option in options.split()} >= {"--interval", "--timeout", "--retries"}
    program = json.loads(command)
    assert program[:2] == ["python", "-c"]
    compile(program[2], "HEALTHCHECK", "exec")
    assert "'http://127.0.0.1:4000/health'" in program[2]


def test_the_image_serves_to_other_containers_and_gets_its_signals(image: list[Instruction]) -> None:
    """Listening on 127.0.0.1 nobody would reach it; under a shell SIGTERM would not reach it, and every stop be a kill."""
    assert [json.loads(value) for value in of(image, "ENTRYPOINT") + of(image, "CMD")] == [
        ["bitnexus"],
        ["serve", "--host", "0.0.0.0"],
    ]
    assert of(image, "EXPOSE") == ["4000"]


def test_nothing_comes_into_the_image_that_is_not_in_the_checkout() -> None:
    """ADD fetches from anywhere and unpacks; a COPY of a path that is gone fails the build only when somebody builds."""
    assert [i for i in instructions((ROOT / "Dockerfile").read_text()) if i.keyword == "ADD"] == []
    assert [source for source in copied_from_checkout() if not (ROOT / source).exists()] == []


def test_the_builder_is_sent_what_is_copied_and_nothing_else() -> None:
    """A .env with the master key must not get into a layer; a package that is not sent cannot be copied."""
    everything, *rest = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    sent = {line.removeprefix("!") for line in rest if line.startswith("!")}
    assert everything == "*"
    assert sent == set(copied_from_checkout())
    assert not any(fnmatch.fnmatch(".env", pattern) for pattern in sent)


def test_every_package_of_the_project_is_in_the_image() -> None:
    """A package that is missing shows only when the image starts."""
    packages = {path.parent.name for path in ROOT.glob("*/py.typed")}
    assert packages <= set(copied_from_checkout())


def test_the_image_installs_all_but_the_embedded_postgresql() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    kept = runtime_requirements.runtime_requirements(pyproject)
    assert "litestar" in " ".join(kept)
    assert [requirement for requirement in kept if "pgserver" in requirement] == []


def test_a_renamed_embedded_postgresql_is_noticed() -> None:
    """It would come back into the image unseen."""
    with pytest.raises(ValueError, match="names it 0 times"):
        runtime_requirements.runtime_requirements('[project]\ndependencies = ["litestar", "another-pgserver"]')


# compose.yml


def test_every_service_is_watched_or_runs_once(services: dict[str, dict[str, Any]], image: list[Instruction]) -> None:
    """A node that hangs would stay behind the balancer. What is built from our Dockerfile has its check from there."""
    assert of(image, "HEALTHCHECK")
    unwatched = [
        name
        for name, service in services.items()
        if not is_one_shot(service) and "test" not in service.get("healthcheck", {}) and service.get("build") != "."
    ]
    assert unwatched == []
    assert [name for name, service in services.items() if is_one_shot(service)] == ["migrate"]


def test_services_come_back_after_a_crash(services: dict[str, dict[str, Any]]) -> None:
    assert {service["restart"] for service in services.values() if not is_one_shot(service)} == {"unless-stopped"}


def test_a_service_waits_for_services_that_are_there(services: dict[str, dict[str, Any]]) -> None:
    """A node that starts before the migrations would refuse the schema."""
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for node in ("api-1", "api-2"):
        assert services[node]["depends_on"] == {
            "postgres": {"condition": "service_healthy"},
            "migrate": {"condition": "service_completed_successfully"},
        }


def test_volumes_and_networks_are_declared_and_files_are_there(compose: dict[str, Any]) -> None:
    """An undeclared volume stops `up`; a mounted file that is not there becomes an empty directory."""
    for service in compose["services"].values():
        assert set(service.get("networks", [])) <= set(compose["networks"])
        for mount in service.get("volumes", []):
            source, target, *_ = mount.split(":")
            assert target.startswith("/")
            if source.startswith("."):
                assert (ROOT / source).is_file(), source
            else:
                assert source in compose["volumes"], source


def test_the_database_is_kept_where_postgresql_18_writes(services: dict[str, dict[str, Any]]) -> None:
    """With the mount of older images, /var/lib/postgresql/data, the data would be gone with the container."""
    assert services["postgres"]["image"] == "pgvector/pgvector:pg18"
    assert services["postgres"]["volumes"] == ["postgres-data:/var/lib/postgresql"]


def test_all_nodes_write_erasures_into_one_list_that_outlives_the_database(
    services: dict[str, dict[str, Any]], image: list[Instruction]
) -> None:
    """Of a list in a container nothing is left after an update, and a node does not know whom another one erased."""
    nodes = [service for name, service in services.items() if name.startswith("api-")]
    assert len(nodes) == 2
    mounts = {mount for node in nodes for mount in node["volumes"]}
    (source, target) = next(iter(mounts)).split(":")
    assert all(node["volumes"] == [f"{source}:{target}"] for node in nodes)
    assert {node["environment"]["BITNEXUS_ERASURE_LIST"] for node in nodes} == {f"{target}/erasures.jsonl"}
    assert not any(mount.startswith(f"{source}:") for mount in services["postgres"]["volumes"])
    made = [run for run in of(image, "RUN") if run.startswith("install --directory") and run.endswith(f" {target}")]
    assert [set(run.split()) >= {"--owner=bitnexus", "--mode=0700"} for run in made] == [True]


def test_mails_go_out_of_a_node_or_are_kept_where_it_may_write(services: dict[str, dict[str, Any]]) -> None:
    """Else nobody could show an address to be theirs or get a new password, and nobody would hear of it."""
    names = ("BITNEXUS_SMTP_URL", "BITNEXUS_MAIL_FROM", "BITNEXUS_FRONT_END", "BITNEXUS_SOCKET_ORIGINS")
    given = {
        "BITNEXUS_SMTP_URL": "smtps://shop:secret@mail.shop.example",
        "BITNEXUS_MAIL_FROM": "Shop <no-reply@shop.example>",
        "BITNEXUS_FRONT_END": "https://app.shop.example",
        "BITNEXUS_SOCKET_ORIGINS": "shop.example",
    }
    for name in ("api-1", "api-2"):
        node = services[name]
        passed = {each: node["environment"].get(each) for each in names}
        assert passed == {each: f"${{{each}:-}}" for each in names}
        plain = {key: value for key, value in node["environment"].items() if "$" not in value}
        key = {"BITNEXUS_MASTER_KEY": base64.b64encode(bytes(32)).decode()}
        found = settings.read({**plain, **key, **given})
        assert (found.mail_server, found.front_end) == (given["BITNEXUS_SMTP_URL"], given["BITNEXUS_FRONT_END"])
        assert str(found.data_dir) in {mount.split(":")[1] for mount in node["volumes"]}


def test_no_secret_is_in_the_file(services: dict[str, dict[str, Any]]) -> None:
    """Secrets come from the environment, and a missing one stops `up` with what to do; one that is not needed is empty."""
    secrets = {
        f"{name}.{key}": value
        for name, service in services.items()
        for key, value in service.get("environment", {}).items()
        if SECRET_NAME.search(key)
    }
    assert [name for name, value in secrets.items() if value != OPTIONAL and not REQUIRED.fullmatch(value)] == []
    assert {"postgres.POSTGRES_PASSWORD", "migrate.PGPASSWORD", "api-1.BITNEXUS_MASTER_KEY"} <= set(secrets)
    assert re.findall(r"//[^/\s:@]+:[^/\s@]+@", (ROOT / "compose.yml").read_text()) == []


def test_a_node_does_not_get_the_owners_password(services: dict[str, dict[str, Any]]) -> None:
    """Who takes a node over could otherwise become the owner, and rewrite the ledger."""
    for node in ("api-1", "api-2"):
        assert "POSTGRES_PASSWORD" not in str(services[node]["environment"])


def test_only_the_balancer_can_be_reached_from_outside(services: dict[str, dict[str, Any]]) -> None:
    """Nodes believe X-Forwarded-For: reached directly, a client would choose its own address."""
    assert [name for name, service in services.items() if "ports" in service] == ["balancer"]
    assert services["balancer"]["networks"] == ["front"]
    assert services["postgres"]["networks"] == services["migrate"]["networks"] == ["back"]


def test_containers_give_up_what_they_do_not_need(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        given_up = {key: service.get(key) for key in ("init", "read_only", "cap_drop", "security_opt")}
        assert given_up == {
            "init": True,
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
        }, name
        assert "privileged" not in service
        assert "cap_add" not in service


def test_every_variable_is_explained() -> None:
    """Whoever runs it has the README, not the file."""
    used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "compose.yml").read_text()))
    readme = (ROOT / "deploy/README.md").read_text()
    assert {"BITNEXUS_MASTER_KEY", "POSTGRES_PASSWORD"} <= used
    assert [name for name in sorted(used) if f"`{name}`" not in readme] == []


def test_the_readmes_master_key_has_32_bytes() -> None:
    """The process refuses any other."""
    (command,) = re.findall(r"BITNEXUS_MASTER_KEY=\$\((python3 -c .+)\)", (ROOT / "deploy/README.md").read_text())
    program = re.fullmatch(r"python3 -c '([^']+)'", command)
    assert program is not None
    key = subprocess.run([sys.executable, "-c", program[1]], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"[A-Za-z0-9+/]{43}=\n", key)


def test_docker_compose_takes_the_file() -> None:
    """Only where Docker's compose plugin is: it knows its own format best. It starts nothing and needs no engine."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("docker compose is not here")
    secrets = {"BITNEXUS_MASTER_KEY": "checked for syntax", "POSTGRES_PASSWORD": "checked for syntax"}
    command = [docker, "compose", "--file", str(ROOT / "compose.yml"), "config", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **secrets})
    assert (result.returncode, result.stderr) == (0, "")


# deploy/haproxy.cfg


def test_the_balancer_knows_every_node(balancer: list[str], services: dict[str, dict[str, Any]]) -> None:
    """A node that nobody asks is a node that nobody misses."""
    nodes = [name for name in services if name.startswith("api-")]
    assert [line for line in balancer if line.startswith("server ")] == [
        *(f"server {node} {node}:4000" for node in nodes),
        *(f"server {node} {node}:4000 track nodes/{node}" for node in nodes),
    ]
    assert "http-check send meth GET uri /ready" in balancer
    assert any(line.startswith("default-server check ") for line in balancer)
    (port,) = [line.removeprefix("bind :") for line in balancer if line.startswith("bind ")]
    assert [mapping.rsplit(":", 1)[1] for mapping in services["balancer"]["ports"]] == [port]


def test_the_balancer_does_not_pass_scrapes_on(balancer: list[str]) -> None:
    """Two nodes' counters by turns look like restarts without end."""
    (line,) = [line for line in balancer if "/metrics" in line]
    body = re.fullmatch(
        r"http-request return status 404 content-type application/problem\+json string '(.+)' if \{ path_beg /metrics \}",
        line,
    )
    assert body is not None
    assert json.loads(body[1])["status"] == 404


def test_a_long_polls_requests_come_to_one_node(balancer: list[str]) -> None:
    """Its session lives there: elsewhere each of them would find it dead."""
    assert "use_backend longpolls if { path /socket/longpoll }" in balancer
    at = balancer.index("backend longpolls")
    assert balancer[at + 1] == "balance source"


def test_the_balancer_logs_no_query(balancer: list[str]) -> None:
    """A socket's access token is in it."""
    assert "option httplog" not in balancer
    (line,) = [line for line in balancer if line.startswith("log-format ")]
    assert {"%HPO"} == {
        word.strip('"') for word in line.split() if word.strip('"') in ("%r", "%HU", "%HQ", "%HP", "%HPO")
    }


def test_feeds_and_sockets_outlive_a_quiet_time(balancer: list[str]) -> None:
    """A feed says something every 15 s; a time-out near that would cut quiet feeds."""
    timeouts = {words[1]: words[2] for line in balancer if (words := line.split())[0] == "timeout"}
    assert (timeouts["client"], timeouts["server"], timeouts["tunnel"]) == ("75s", "75s", "1h")
    assert [line for line in balancer if "http-buffer-request" in line or "wait-for-body" in line] == []


def test_the_clients_address_is_the_balancers_word(balancer: list[str]) -> None:
    """Appended to what the client sent, limits per address could be dodged by a made-up header."""
    assert "http-request set-header X-Forwarded-For %[src]" in balancer
    assert "option forwardfor" not in balancer


def test_a_command_is_never_sent_twice_by_the_balancer(balancer: list[str]) -> None:
    assert "retry-on conn-failure empty-response" in balancer
    assert "http-request disable-l7-retry unless { method GET HEAD OPTIONS }" in balancer


def test_the_balancers_own_errors_are_problem_details(balancer: list[str]) -> None:
    """A client that parses every error as JSON would trip over a page of HTML."""
    errors = [line for line in balancer if line.startswith("http-error status ")]
    assert [line.split()[2] for line in errors] == ["502", "503", "504"] * 2
    errors, of_long_polls = errors[:3], errors[3:]
    assert all("""string '{"status":500}'""" in line for line in of_long_polls)  # all else ends the npm client for good
    for line in errors:
        body = re.fullmatch(r"http-error status \d+ content-type application/problem\+json string '(.+)'.*", line)
        assert body is not None, line
        problem = json.loads(body[1])
        assert set(problem) == {"type", "title", "status", "errors"}
        assert str(problem["status"]) == line.split()[2]

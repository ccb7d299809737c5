"""What the process is told: wrong settings stop it before it does anything."""

import base64
from pathlib import Path

import pytest

from bitnexus import keyfile, settings
from commands import passwords
from ledger.keys import MasterKey

KEY = base64.b64encode(bytes(32)).decode()
URL = "postgresql://owner:verysecret@db.example/shop"


def test_without_any_variable_the_database_is_our_own() -> None:
    found = settings.read({})
    assert found.embedded
    assert found.data_dir.is_absolute()
    assert found.log_level == "info"


def test_the_flag_wins_over_the_variable_and_an_empty_variable_is_none(tmp_path: Path) -> None:
    environment = {"BITNEXUS_DATA_DIR": "/elsewhere", "DATABASE_URL": "", "BITNEXUS_DEFAULT_TENANT": ""}
    found = settings.read(environment, data_dir=tmp_path)
    assert (found.data_dir, found.database_url, found.default_tenant) == (tmp_path, None, None)
    assert settings.read(environment).data_dir == Path("/elsewhere")


def test_a_database_of_ones_own_needs_a_key_of_ones_own() -> None:
    """A key file made on one node would be another one on the next node."""
    with pytest.raises(settings.SettingInvalid, match=r"BITNEXUS_MASTER_KEY is not set\. Make one with python3 -c"):
        settings.read({"DATABASE_URL": URL})
    assert not settings.read({"DATABASE_URL": URL, "BITNEXUS_MASTER_KEY": KEY}).embedded
    assert not settings.read({"DATABASE_APP_URL": URL, "BITNEXUS_MASTER_KEY": KEY}).embedded


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("BITNEXUS_MASTER_KEY", "hunter2", "7 characters long"),
        ("BITNEXUS_MASTER_KEY", base64.b64encode(bytes(31)).decode(), "44 characters long"),
        ("DATABASE_URL", "mysql://owner:verysecret@db/shop", "not a PostgreSQL URL"),
        ("DATABASE_URL", "postgresql://owner:verysecret@db", "names no database"),
        ("DATABASE_APP_URL", "postgresql://db:port/shop?verysecret", "not a PostgreSQL URL"),
        ("BITNEXUS_DEFAULT_TENANT", "No Slug", "'No Slug'"),
        ("BITNEXUS_ARGON2", "m=1024,t=3,p=4", "at least 19456"),
        ("BITNEXUS_ARGON2", "strong", "'strong'"),
        ("BITNEXUS_HASHES_AT_ONCE", "0", "1 to 99"),
        ("BITNEXUS_METRICS_TOKEN", "hunter2", "7 characters long"),
        ("BITNEXUS_METRICS_TOKEN", "hunter2 " + "ü" * 22, "30 characters long"),
        ("DATABASE_REPLICA_URL", "postgresql://db:port/shop?verysecret", "not a PostgreSQL URL"),
        ("BITNEXUS_CACHE_MIB", "-1", "from 0"),
        ("BITNEXUS_CACHE_MIB", "4097", "to 4096"),
        ("BITNEXUS_LOG_LEVEL", "loud", "debug, info, warning, error"),
        ("BITNEXUS_TOKEN_ISSUER", "bit\nnexus", "ASCII characters"),
        ("BITNEXUS_TOKEN_AUDIENCE", "x" * 201, "at most 200"),
        ("BITNEXUS_SESSION_DAYS", "0", "from 1 to 400"),
        ("BITNEXUS_SESSION_DAYS", "9" * 5_000, "from 1 to 400"),
        ("BITNEXUS_SESSION_IDLE_DAYS", "-1", "unset for 14"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_and_a_secret_is_not_shown(name: str, value: str, says: str) -> None:
    with pytest.raises(settings.SettingInvalid, match=says) as caught:
        settings.read({name: value})
    assert name in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "verysecret" not in str(caught.value)


def test_what_a_hash_costs_is_a_setting() -> None:
    found = settings.read({"BITNEXUS_ARGON2": "m=131072,t=4,p=1", "BITNEXUS_HASHES_AT_ONCE": "8"}).hashing
    parameters = found.parameters
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism, found.at_once) == (131072, 4, 1, 8)
    assert settings.read({}).hashing.parameters == passwords.PARAMETERS


def test_how_long_a_session_lasts_and_whom_tokens_are_for_are_settings() -> None:
    names = ("BITNEXUS_TOKEN_ISSUER", "BITNEXUS_TOKEN_AUDIENCE", "BITNEXUS_SESSION_DAYS", "BITNEXUS_SESSION_IDLE_DAYS")
    found = settings.read(dict(zip(names, ("https://id.example", "shop", "400", "1"), strict=True)))
    assert (found.token_issuer, found.token_audience) == ("https://id.example", "shop")
    assert (found.session_days, found.session_idle_days) == (400, 1)
    default = settings.read({})
    assert (default.token_issuer, default.token_audience) == ("bitnexus", "bitnexus")
    assert (default.session_days, default.session_idle_days) == (30, 14)


def test_limits_and_origins_are_settings() -> None:
    found = settings.read(
        {
            "BITNEXUS_RATE_ADDRESS": "5/60",
            "BITNEXUS_RATE_TENANT": "off",
            "BITNEXUS_CORS_ORIGINS": "https://app.example.com, http://localhost:3000",
            "FORWARDED_ALLOW_IPS": "10.0.0.5,10.1.0.0/16",
        }
    )
    assert (found.rate_address, found.rate_user, found.rate_tenant) == ((5, 60), (6000, 60), None)
    assert found.rate_account == (30, 3600)
    assert found.cors_origins == {"https://app.example.com", "http://localhost:3000"}
    assert found.proxies_believed == "10.0.0.5,10.1.0.0/16"
    assert settings.read({"FORWARDED_ALLOW_IPS": "*"}).proxies_believed == "*"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BITNEXUS_RATE_USER", "fast"),
        ("BITNEXUS_RATE_USER", "0/60"),
        ("BITNEXUS_RATE_USER", "60"),
        ("BITNEXUS_CORS_ORIGINS", "*"),
        ("BITNEXUS_CORS_ORIGINS", "https://app.example.com/"),
        ("BITNEXUS_CORS_ORIGINS", "null"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.5;10.0.0.6"),
        ("FORWARDED_ALLOW_IPS", "proxy.internal"),
    ],
)
def test_a_limit_an_origin_or_a_proxy_that_cannot_be_meant_stops_the_start(name: str, value: str) -> None:
    """Taken for something else it would let in whom it was to keep out."""
    with pytest.raises(settings.SettingInvalid, match=name):
        settings.read({name: value})


def test_settings_in_a_log_show_no_secret() -> None:
    secrets = {
        "DATABASE_URL": URL,
        "DATABASE_APP_URL": URL,
        "BITNEXUS_MASTER_KEY": KEY,
        "BITNEXUS_METRICS_TOKEN": KEY[:30],
    }
    shown = repr(settings.read(secrets))
    assert "verysecret" not in shown
    assert KEY[:30] not in shown


# The key file


def test_a_new_key_is_kept_for_its_owner_alone_and_found_again(tmp_path: Path) -> None:
    said: list[str] = []
    made = keyfile.make(tmp_path, said.append)
    again = keyfile.make(tmp_path, said.append)  # another process was quicker
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]
    assert (tmp_path / "master.key").stat().st_mode & 0o777 == 0o600
    found = keyfile.read(tmp_path)
    assert found is not None
    assert {made.id, again.id, found.id} == {made.id}
    assert len(said) == 1
    assert str(tmp_path / "master.key") in said[0]


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    keyfile.make(tmp_path, lambda text: None)
    (tmp_path / "master.key").chmod(0o640)
    with pytest.raises(keyfile.KeyFileUnusable, match=r"its mode is 0640, not 0600. Run `chmod 600"):
        keyfile.read(tmp_path)


@pytest.mark.parametrize("content", ["", "not a key", "é", MasterKey.generate() + "x" * 2_000])
def test_a_key_file_without_a_key_is_refused_and_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "master.key"
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(keyfile.KeyFileUnusable, match="holds no key"):
        keyfile.read(tmp_path)
    with pytest.raises(keyfile.KeyFileUnusable):
        keyfile.make(tmp_path, lambda text: None)
    assert path.read_text() == content

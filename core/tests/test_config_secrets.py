"""No secret shows in an error, whichever way it got into the configuration."""

from __future__ import annotations

import copy
import json
import traceback
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flowcoro.config import ConfigFile, ConfigSection, Secret, load_config
from flowcoro.errors import ConfigError


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: int = 1
    password: Secret = Secret("")


class Vault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    phrase: Secret = Secret("")
    maybe: Secret | None = None
    several: list[Secret] = []
    some: list[Secret] | None = None
    number: int = 1
    url: str = ""
    api_key: int = 1
    token: Literal["a", "b"] = "a"
    accounts: list[Account] = []
    account: Account = Account()


SECTIONS = [ConfigSection("vault", Vault)]

# Long and odd enough that it is in no message by chance.
secrets = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")),
    min_size=1,
    max_size=60,
).map(lambda text: f"~s3cr3t{text}Zq9")


def message(file: dict[str, Any], environ: dict[str, str], options: list[str]) -> str:
    """Return all that the error shows, or an empty text if there is none."""
    try:
        config = load_config(
            SECTIONS, file=ConfigFile(None, {"vault": file}), environ=environ, options=options
        )
    except ConfigError as error:
        return "".join([*traceback.format_exception(error), repr(error), *error.problems])
    return "".join(map(repr, [config, config["vault"]])) + str(config["vault"].phrase)


def assert_hidden(secret: str, text: str) -> None:
    assert secret not in text
    assert "s3cr3t" not in text
    assert "Zq9" not in text
    assert "***" in text


@given(secrets)
def test_a_secret_field_never_shows(secret: str) -> None:
    wrong = [secret]
    for file in (
        {"phrase": secret},
        {"phrase": wrong},
        {"maybe": wrong},
        {"several": secret},
        {"several": [wrong]},
        {"account": {"password": wrong}},
    ):
        assert_hidden(secret, message(file, {}, []))


@given(secrets)
def test_a_secret_within_an_optional_list_never_shows(secret: str) -> None:
    assert_hidden(secret, message({"some": secret}, {}, []))


@given(secrets)
def test_a_secret_within_a_list_of_tables_never_shows(secret: str) -> None:
    accounts = [{"port": 1, "password": "x"}, {"port": "high", "password": secret}]
    text = message({"accounts": accounts}, {}, [])
    assert "vault.accounts" in text
    assert "s3cr3t" not in text
    assert "Zq9" not in text


@given(secrets)
def test_a_key_that_sounds_secret_never_shows_its_value(secret: str) -> None:
    assert_hidden(secret, message({"api_key": secret}, {}, []))
    assert_hidden(secret, message({"token": secret}, {}, []))
    assert_hidden(secret, message({"old_password": secret}, {}, []))
    assert_hidden(secret, message({}, {"FLOWCORO_VAULT_API_KEY": secret}, []))
    assert_hidden(secret, message({}, {}, [f"vault.api_key={secret}"]))
    assert_hidden(secret, message({"account": {"secret": secret}}, {}, []))


@given(secrets)
@pytest.mark.parametrize("key", ["phrsae", "prase", "pasword", "passwor", "api_ky"])
def test_a_mistyped_secret_key_does_not_show_its_value(key: str, secret: str) -> None:
    table = {"account": {key: secret}} if key.startswith("pas") else {key: secret}
    text = message(table, {}, [])
    assert "unknown key" in text
    assert "s3cr3t" not in text
    option = f"vault.{key}={secret}"
    assert "s3cr3t" not in message({}, {}, [option])
    assert "s3cr3t" not in message({}, {f"FLOWCORO_VAULT_{key.upper()}": secret}, [])


@given(secrets)
def test_the_userinfo_of_an_address_never_shows(secret: str) -> None:
    assume("'" not in secret)
    for address in (
        f"postgres://user:{secret}@db.example/x",
        f"postgres://{secret}@db.example/x",
        f"amqp://{secret}:{secret}@db.example",
    ):
        for table in ({"number": address}, {"url": [address]}, {"unknown_address": address}):
            text = message(table, {}, [])
            assert_hidden(secret, text)
            assert "db.example" in text


def test_the_rest_of_an_address_is_shown() -> None:
    text = message({"number": "postgres://me:pw@db.example:5432/x"}, {}, [])
    assert "vault.number = 'postgres://***@db.example:5432/x': expected `int`, got `str`" in text


def test_a_long_value_is_cut() -> None:
    text = message({"number": "x" * 500}, {}, [])
    assert "x" * 80 not in text
    assert "…" in text


@given(secrets)
def test_a_secret_reveals_itself_on_request_only(value: str) -> None:
    secret = Secret(value)
    assert secret.reveal() == value
    assert type(secret.reveal()) is str
    assert secret == value
    assert bool(secret)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>20}", f"{secret:>20}"]
    shown += ["{}".format(secret), "%s" % secret, str([secret]), str({"k": secret})]  # noqa: UP031, UP032
    shown.append(repr(Vault(phrase=secret)))
    for text in shown:
        assert "s3cr3t" not in text
        assert "***" in text
    assert copy.deepcopy(secret).reveal() == value
    # Serialising is asking for the value: a client has to send it.
    assert json.loads(json.dumps(secret)) == value


def test_a_secret_from_each_source() -> None:
    config = load_config(
        SECTIONS, environ={"FLOWCORO_VAULT_PHRASE": "x"}, options=["vault.maybe=y"]
    )
    assert type(config["vault"].phrase) is Secret
    assert config["vault"].phrase.reveal() == "x"
    assert config["vault"].maybe.reveal() == "y"
    file = ConfigFile(None, {"vault": {"several": ["a", "b"], "accounts": [{"password": "p"}]}})
    config = load_config(SECTIONS, file=file, environ={})
    assert [s.reveal() for s in config["vault"].several] == ["a", "b"]
    assert config["vault"].accounts[0].password.reveal() == "p"


def test_a_secret_must_be_text() -> None:
    text = message({"phrase": 5}, {}, [])
    assert "vault.phrase = ***: expected a string" in text

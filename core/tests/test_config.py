from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import msgspec
import pytest

from flowcoro import hookimpl
from flowcoro import plugin as core
from flowcoro.app._environment import load_environment, read_config
from flowcoro.config import (
    Config,
    ConfigFile,
    ConfigSection,
    LogConfig,
    PluginsConfig,
    ServerConfig,
    find_config_file,
    load_config,
)
from flowcoro.errors import ConfigError
from flowcoro.plugins import PluginHost
from flowcoro.testing import make_host


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cert: str = ""
    versions: tuple[str, ...] = ("1.3",)


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[store]`: for these tests."""

    url: str = "sqlite://"
    size: Annotated[int, msgspec.Meta(ge=1)] = 5
    ratio: float = 0.5
    fast: bool = False
    mode: Literal["read", "write"] = "read"
    hosts: list[str] = msgspec.field(default_factory=list)
    ports: tuple[int, ...] = ()
    limit: int | None = None
    names: Annotated[list[str], msgspec.Meta(max_length=3)] = msgspec.field(default_factory=list)
    tags: list[str] | None = None
    tls: Tls = Tls()


class Pool(msgspec.Struct, frozen=True):
    size: int = 1


class Parent(msgspec.Struct, frozen=True):
    pool_size: int = 1
    pool: Pool = Pool()


class Inner(msgspec.Struct):
    key: str


class Outer(msgspec.Struct):
    inner: Inner


class Range(msgspec.Struct):
    low: int = 0
    high: int = 9

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


class Renamed(msgspec.Struct):
    from_: str = msgspec.field(default="", name="from")


class Labels(msgspec.Struct):
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    tls: Tls | None = None


class Many(msgspec.Struct):
    tls: list[Tls] = msgspec.field(default_factory=list)


SECTIONS = [
    ConfigSection("server", ServerConfig),
    ConfigSection("log", LogConfig),
    ConfigSection("plugins", PluginsConfig),
    ConfigSection("store", Store),
]


def read(
    text: str = "",
    *,
    environ: Mapping[str, str] | None = None,
    options: tuple[str, ...] = (),
    absent: tuple[str, ...] = (),
    sections: list[ConfigSection] = SECTIONS,
    folder: Path | None = None,
) -> Config:
    file = None
    if text and folder is not None:
        path = folder / "flowcoro.toml"
        path.write_text(text, encoding="utf-8")
        file = ConfigFile.read(path)
    return load_config(sections, file=file, environ=environ or {}, options=options, absent=absent)


def problems(*args: Any, **kwargs: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(*args, **kwargs)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_defaults() -> None:
    config = read()
    assert config.section(ServerConfig) == ServerConfig()
    assert config["server"].port == 8000
    assert config.section(Store).tls.versions == ("1.3",)
    assert "store" in config
    assert "tls" not in config
    assert not config.is_given("server.port")
    assert repr(config) == "Config(log, plugins, server, store)"


def test_every_kind_of_value_from_a_file(tmp_path: Path) -> None:
    text = """
    [store]
    url = "postgres://"
    size = 7
    ratio = 1
    fast = true
    mode = "write"
    hosts = ["a", "b"]
    ports = [1, 2]
    limit = 3
    tags = ["t"]
    [store.tls]
    cert = "c.pem"
    versions = ["1.2", "1.3"]
    """
    store = read(text, folder=tmp_path).section(Store)
    assert store == Store(
        url="postgres://",
        size=7,
        ratio=1.0,
        fast=True,
        mode="write",
        hosts=["a", "b"],
        ports=(1, 2),
        limit=3,
        tags=["t"],
        tls=Tls(cert="c.pem", versions=("1.2", "1.3")),
    )


def test_every_kind_of_value_from_variables() -> None:
    environ = {
        "FLOWCORO_STORE_URL": "postgres://",
        "FLOWCORO_STORE_SIZE": "7",
        "FLOWCORO_STORE_RATIO": "1",
        "FLOWCORO_STORE_FAST": "true",
        "FLOWCORO_STORE_MODE": "write",
        "FLOWCORO_STORE_HOSTS": "a, b,",
        "FLOWCORO_STORE_PORTS": "1,2",
        "FLOWCORO_STORE_LIMIT": "3",
        "FLOWCORO_STORE_TLS_CERT": "c.pem",
        "FLOWCORO_STORE_TLS_VERSIONS": "1.2",
        "PATH": "/bin",
        "STORE_SIZE": "9",
    }
    store = read(environ=environ).section(Store)
    assert store == Store(
        url="postgres://",
        size=7,
        ratio=1.0,
        fast=True,
        mode="write",
        hosts=["a", "b"],
        ports=(1, 2),
        limit=3,
        tls=Tls(cert="c.pem", versions=("1.2",)),
    )


@pytest.mark.parametrize("key", ["hosts", "names", "tags"])
def test_a_list_from_a_variable_whatever_its_annotation(key: str) -> None:
    config = read(environ={f"FLOWCORO_STORE_{key.upper()}": "a,b"})
    assert getattr(config["store"], key) == ["a", "b"]


def test_an_empty_variable_is_an_empty_list() -> None:
    assert read(environ={"FLOWCORO_STORE_HOSTS": ""})["store"].hosts == []


def test_options() -> None:
    config = read(options=("store.size=9", "store.tls.cert=x=y", " store.hosts = a,b"))
    assert config["store"].size == 9
    assert config["store"].tls.cert == "x=y"
    assert config["store"].hosts == ["a", "b"]


def test_options_win_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    text = "[server]\nhost = 'file'\nport = 1\nworkers = 2\n"
    environ = {"FLOWCORO_SERVER_PORT": "3", "FLOWCORO_SERVER_WORKERS": "4"}
    config = read(text, environ=environ, options=("server.workers=5",), folder=tmp_path)
    assert config["server"] == ServerConfig(host="file", port=3, workers=5)
    assert config.is_given("server.port")
    assert not config.is_given("server.drain_timeout")


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        ({"text": "[store]\nsize = 'many'\n"}, "{folder}/flowcoro.toml"),
        ({"environ": {"FLOWCORO_STORE_SIZE": "many"}}, "variable FLOWCORO_STORE_SIZE"),
        ({"options": ("store.size=many",)}, "option store.size"),
    ],
)
def test_an_error_names_origin_key_value_and_expectation(
    tmp_path: Path, source: dict[str, Any], origin: str
) -> None:
    (problem,) = problems(folder=tmp_path, **source)
    assert problem == (
        f"{origin.format(folder=tmp_path)}: store.size = 'many': expected `int`, got `str`"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size = 0", "store.size = 0: expected `int` >= 1"),
        ("size = 1.5", "store.size = 1.5: expected `int`, got `float`"),
        ("fast = 1", "store.fast = 1: expected `bool`, got `int`"),
        ("ratio = nan\nsize = true", "store.size = True: expected `int`, got `bool`"),
        ("url = 3", "store.url = 3: expected `str`, got `int`"),
        ("mode = 'append'", "store.mode = 'append': expected one of 'read', 'write'"),
        ("hosts = 'a'", "store.hosts = 'a': expected `array`, got `str`"),
        ("hosts = [1]", "store.hosts = [1]: expected `str`, got `int`"),
        ("limit = 'x'", "store.limit = 'x': expected `int | null`, got `str`"),
        ("tls = 3", "store.tls = 3: expected a table"),
        ("tls.cert = 3", "store.tls.cert = 3: expected `str`, got `int`"),
    ],
)
def test_each_mistake_in_a_value(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems(f"[store]\n{text}\n", folder=tmp_path)
    assert problem == f"{tmp_path}/flowcoro.toml: {expected}"


def test_what_an_enumeration_expects_is_told(tmp_path: Path) -> None:
    (problem,) = problems("[store]\nmode = 'append'\n", folder=tmp_path)
    assert "'read'" in problem
    assert "'write'" in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[sever]\nport = 1\n", "unknown section [sever]; did you mean 'server'?"),
        ("[zzz]\n", "unknown section [zzz]"),
        ("port = 1\n", "unknown section [port]"),
        ("store = 3\n", "store = 3: expected a table"),
        (
            "[server]\nprot = 1\n",
            "server.prot = 1: unknown key; did you mean 'port'? "
            "(known: drain_timeout, host, port, stall_threshold, threads, workers)",
        ),
        (
            "[store.tls]\nsert = 'x'\n",
            "store.tls.sert = 'x': unknown key; did you mean 'cert'? (known: cert, versions)",
        ),
    ],
)
def test_an_unknown_key_suggests_the_near_one(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems(text, folder=tmp_path)
    assert problem == f"{tmp_path}/flowcoro.toml: {expected}"


@pytest.mark.parametrize("text", ["[server.port]\nnumber = 1\n", "[server.port.deep]\nx = 1\n"])
def test_a_table_where_a_value_belongs(tmp_path: Path, text: str) -> None:
    (problem,) = problems(text, folder=tmp_path)
    assert problem.startswith(f"{tmp_path}/flowcoro.toml: server.port")


def test_an_unknown_variable_suggests_the_near_one() -> None:
    (near,) = problems(environ={"FLOWCORO_SERVER_PROT": "1"})
    assert near == (
        "variable FLOWCORO_SERVER_PROT: no such setting; did you mean 'FLOWCORO_SERVER_PORT'?"
    )
    (far,) = problems(environ={"FLOWCORO_QQ": "1"})
    assert far.startswith("variable FLOWCORO_QQ: no such setting")


@pytest.mark.parametrize("option", ["", "server", "server=1", "server.port", ".port=1", "a..b=1"])
def test_an_option_without_its_form(option: str) -> None:
    (problem,) = problems(options=(option,))
    assert problem.endswith("expected section.key=value")


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    found = problems(
        "[store]\nsize = 0\n[zzz]\nx = 1\n",
        environ={"FLOWCORO_SERVER_PORT": "high", "FLOWCORO_QQ": "1"},
        options=("log.levl=INFO",),
        folder=tmp_path,
    )
    assert len(found) == 5


def test_reserved_variables_are_no_settings() -> None:
    names = ["BLOCK_PLUGINS", "CONFIG", "LOOP", "REACTOR", "TEST_REDIS", "WORKER_CHANNEL"]
    read(environ={f"FLOWCORO_{name}": "x" for name in names})


def test_empty_tables_are_no_mistake(tmp_path: Path) -> None:
    read("[server]\n[store.tls]\n", folder=tmp_path)


def test_sections_of_absent_plugins_are_passed_over(tmp_path: Path) -> None:
    read(
        "[cache]\nttl = 1\n[cache.deep]\nx = 2\n",
        environ={"FLOWCORO_CACHE_TTL": "2", "FLOWCORO_MY_CACHE_TTL": "2"},
        options=("cache.ttl=3",),
        absent=("cache", "my-cache"),
        folder=tmp_path,
    )


def test_an_absent_plugin_does_not_hide_a_section_that_is_there(tmp_path: Path) -> None:
    (problem,) = problems("[store]\nsize = 0\n", absent=("store",), folder=tmp_path)
    assert "store.size" in problem


def test_two_fields_that_share_a_variable() -> None:
    (problem,) = problems(sections=[ConfigSection("db", Parent)])
    assert problem == (
        "FLOWCORO_DB_POOL_SIZE: both db.pool_size and db.pool.size would be set by it; rename one"
    )
    two = [ConfigSection("db_pool", Pool), ConfigSection("db", Parent)]
    assert "FLOWCORO_DB_POOL_SIZE" in problems(sections=two)[0]


def test_a_required_key() -> None:
    sections = [ConfigSection("outer", Outer)]
    (problem,) = problems(sections=sections)
    assert problem == "section [outer]: key 'inner.key' is required and not set"
    config = read(sections=sections, environ={"FLOWCORO_OUTER_INNER_KEY": "k"})
    assert config["outer"].inner.key == "k"


def test_a_struct_that_checks_itself() -> None:
    sections = [ConfigSection("range", Range)]
    (problem,) = problems(sections=sections, options=("range.low=10",))
    assert problem == "section [range]: low is above high"


def test_a_renamed_field_goes_by_its_outer_name(tmp_path: Path) -> None:
    config = read(
        "[mail]\nfrom = 'me'\n", sections=[ConfigSection("mail", Renamed)], folder=tmp_path
    )
    assert config["mail"].from_ == "me"


def test_tables_with_free_keys(tmp_path: Path) -> None:
    text = "[meta.labels]\nteam = 'core'\n[meta.tls]\ncert = 'x'\n"
    config = read(text, sections=[ConfigSection("meta", Labels)], folder=tmp_path)
    assert config["meta"].labels == {"team": "core"}
    assert config["meta"].tls == Tls(cert="x")


def test_a_list_of_tables(tmp_path: Path) -> None:
    text = "[[many.tls]]\ncert = 'a'\n[[many.tls]]\ncert = 'b'\n"
    config = read(text, sections=[ConfigSection("many", Many)], folder=tmp_path)
    assert [t.cert for t in config["many"].tls] == ["a", "b"]


def test_asking_for_a_section_that_is_not_there() -> None:
    config = read()
    with pytest.raises(ConfigError, match="no configuration section has the schema Tls"):
        config.section(Tls)
    with pytest.raises(ConfigError, match=r"no configuration section \[tls\] \(known: log, "):
        config["tls"]
    assert repr(Config()) == "Config()"


@pytest.mark.parametrize("schema", [dict, int, object])
def test_a_schema_that_is_no_struct_spoils_one_plugin_only(schema: Any) -> None:
    bad = SimpleNamespace(FLOWCORO_HOOK_API=1)
    bad.flowcoro_config_sections = hookimpl(lambda: [ConfigSection("bad", schema)])
    host = make_host(strict=False)
    record = host.register(bad, name="bad")
    assert read_config(host, ConfigFile(), environ={})["server"].port == 8000
    assert record.problems


def test_a_contested_section_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    host = make_host(strict=False)
    for name in ("a", "b"):
        claimant = SimpleNamespace(FLOWCORO_HOOK_API=1)
        claimant.flowcoro_config_sections = hookimpl(lambda: [ConfigSection("tls", Tls)])
        host.register(claimant, name=name)
    config = read_config(host, ConfigFile(None, {"tls": {"cert": "x"}}), environ={})
    assert "tls" not in config
    assert "plugin 'a'" in caplog.text
    assert "plugin 'b'" in caplog.text


def test_finding_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config_file({}) is None
    assert ConfigFile.read() == ConfigFile()
    (tmp_path / "flowcoro.toml").write_text("[log]\nlevel = 'DEBUG'\n", encoding="utf-8")
    assert find_config_file({}) == Path("flowcoro.toml")
    assert find_config_file({"FLOWCORO_CONFIG": "other.toml"}) == Path("other.toml")
    monkeypatch.setenv("FLOWCORO_CONFIG", str(tmp_path / "gone.toml"))
    with pytest.raises(ConfigError, match=r"no such file; expected a flowcoro\.toml"):
        load_environment(plugins=make_host())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[server\n", "not valid TOML: "),
        (b"[server]\nport = 1\nport = 2\n", "not valid TOML: "),
        (b"\xff\xfe", "not valid TOML: "),
    ],
)
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "flowcoro.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        ConfigFile.read(path)
    assert str(caught.value).startswith(f"{path}: {expected}")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a readable file"):
        ConfigFile.read(tmp_path)


def test_the_plugins_section_alone(tmp_path: Path) -> None:
    file = ConfigFile(None, {"plugins": {"block": ["a"]}, "unknown": {"x": 1}})
    environ = {"FLOWCORO_PLUGINS_STRICT": "true", "FLOWCORO_OTHER": "1"}
    settings = file.plugins(environ, options=("plugins.block=b,c", "other.x=1"))
    assert settings == PluginsConfig(block=("b", "c"), strict=True)
    with pytest.raises(ConfigError, match=r"plugins\.strict"):
        ConfigFile(None, {"plugins": {"strict": "yes"}}).plugins({})


def test_the_environment_reads_all_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[server]\nport = 1\nworkers = 2\n", encoding="utf-8")
    monkeypatch.setenv("FLOWCORO_SERVER_WORKERS", "3")
    host = make_host()
    environment = load_environment(config_path=path, options=["log.level=DEBUG"], plugins=host)
    assert environment.plugins is host
    assert environment.config["server"] == ServerConfig(port=1, workers=3)
    assert environment.config.section(LogConfig).level == "DEBUG"


def test_a_failed_plugins_section_is_passed_over() -> None:
    host = PluginHost()
    host.register(core, name="core")
    host.register(object(), name="cache")
    read_config(host, ConfigFile(None, {"cache": {"ttl": 1}}), environ={"FLOWCORO_CACHE_X": "1"})

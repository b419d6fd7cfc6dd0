"""The table of settings, and how values get into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from httpy import ConfigError, _httpy
from httpy.settings import (
    GROUPS,
    MEANINGS,
    Given,
    find_file,
    from_environment,
    from_mapping,
    merge,
    misspelled_variables,
    table,
    with_defaults,
)

NATIVE = {**_httpy.defaults(), **_httpy.supervision_defaults()}


# The table


def test_every_native_value_is_a_setting_and_is_explained() -> None:
    assert set(NATIVE) <= set(table())
    assert set(MEANINGS) == set(NATIVE)
    assert {name: table()[name].default for name in NATIVE} == NATIVE


@pytest.mark.parametrize("setting", table().values(), ids=lambda setting: setting.name)
def test_a_setting_takes_its_default(setting: Any) -> None:
    if setting.default not in (None, ""):
        assert setting.value(setting.default, "it") == setting.default
    assert setting.group in GROUPS
    assert setting.meaning


def test_names_are_not_used_twice() -> None:
    shorts = [setting.short for setting in table().values() if setting.short]
    assert len(set(shorts)) == len(shorts)


# Values


@pytest.mark.parametrize(
    ("name", "found", "value"),
    [
        ("port", "80", 80),
        ("port", 65535, 65535),
        ("grace", "1.5", 1.5),
        ("grace", 2, 2.0),
        ("grace", 0, 0.0),
        ("debug", "yes", True),
        ("debug", "Off", False),
        ("debug", True, True),
        ("access_log", "true", True),
        ("access_log", "-", True),
        ("access_log", "a.log", "a.log"),
        ("access_log", False, False),
        ("workers", "auto", "auto"),
        ("workers", "4", 4),
        ("umask", "027", 0o027),
        ("umask", 0o077, 0o077),
        ("root_path", "/api/", "/api"),
        ("recycle_jitter", "0.5", 0.5),
        ("bind", "a:1", ["a:1"]),
        ("bind", ["a:1", "b:2"], ["a:1", "b:2"]),
        ("log_level", "trace", "trace"),
    ],
)
def test_values_are_read(name: str, found: Any, value: Any) -> None:
    assert table()[name].value(found, name) == value


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("port", "x", "port is a number from 0 to 65535, not 'x'"),
        ("port", 65536, "port is a number from 0 to 65535, not 65536"),
        ("port", True, "port is a number from 0 to 65535, not True"),
        ("max_body_bytes", -1, "max_body_bytes is a whole number that is not negative, not -1"),
        ("max_body_bytes", 1.5, "max_body_bytes is a whole number that is not negative, not 1.5"),
        ("grace", "soon", "grace is a number of seconds that is not negative, not 'soon'"),
        ("grace", "nan", "grace is a number of seconds that is not negative, not 'nan'"),
        ("grace", float("inf"), "grace is a number of seconds that is not negative, not inf"),
        ("grace", True, "grace is a number of seconds that is not negative, not True"),
        ("debug", "maybe", "debug is true or false, not 'maybe'"),
        ("debug", 1, "debug is true or false, not 1"),
        ("access_log", 7, "access_log is true, false or a path, not 7"),
        ("workers", 0, "workers is a whole number from 1 on, or auto, not 0"),
        ("umask", "9", "umask is permissions in octal, such as 027, not '9'"),
        ("loop", "trio", "loop is one of auto, selector, thread, uvloop, not 'trio'"),
        ("log_format", "xml", "log_format is one of text, json, not 'xml'"),
        ("host", "", "host is text, not ''"),
        ("root_path", "api", "root_path is a percent-encoded path, such as /api, not 'api'"),
        ("bind", 80, "bind is a list, not 80"),
        ("bind", [80], "bind is text, not 80"),
    ],
)
def test_wrong_values_are_refused(name: str, found: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        table()[name].value(found, name)

    assert str(refused.value) == message


# The environment


def test_variables_are_read_and_empty_ones_are_not() -> None:
    variables = {"HTTPY_PORT": "80", "HTTPY_HOST": "", "PORT": "1", "HTTPY_BIND": ":80  unix:/a"}

    assert from_environment(variables) == {"port": 80, "bind": [":80", "unix:/a"]}


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^HTTPY_PORT is a number from 0 to 65535, not 'x'$"):
        from_environment({"HTTPY_PORT": "x"})


@pytest.mark.parametrize("setting", table().values(), ids=lambda setting: setting.name)
def test_every_setting_has_a_variable(setting: Any) -> None:
    found = {
        "workers": "3",
        "loop": "thread",
        "interface": "wsgi",
        "log_level": "debug",
        "log_format": "json",
        "color": "never",
        "client_auth": "optional",
        "tls_min_version": "1.3",
    }
    text = found.get(setting.name, "1" if setting.name != "root_path" else "/1")

    assert set(from_environment({setting.variable: text})) == {setting.name}


def test_what_is_nearly_a_variable_is_pointed_at() -> None:
    assert misspelled_variables(
        {"HTTPY_PROT": "1", "HTTPY_PORT": "1", "HTTPY_BENCH_INLINE": "1", "A": "1"}
    ) == ["HTTPY_PROT is no setting; did you mean HTTPY_PORT?"]


# Files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(explicit: Any = None) -> Given:
    found = find_file(explicit)
    assert found is not None
    return from_mapping(found[1], found[0])


def test_without_a_file_there_are_no_values(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\n')

    assert find_file(None) is None


def test_httpy_toml_is_found(folder: Path) -> None:
    (folder / "httpy.toml").write_text('port = 80\nmax-body-bytes = 5\nbind = ["a:1"]\ngrace = 1\n')

    assert read() == {"port": 80, "max_body_bytes": 5, "bind": ["a:1"], "grace": 1.0}


def test_pyproject_is_found_unless_httpy_toml_is(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.httpy]\nport = 81\n")
    assert read() == {"port": 81}

    (folder / "httpy.toml").write_text("port = 80\n")
    assert read() == {"port": 80}


def test_a_file_may_be_named(folder: Path) -> None:
    (folder / "httpy.toml").write_text("port = 80\n")
    (folder / "other.toml").write_text("port = 82\n")

    assert read("other.toml") == {"port": 82}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prot = 80\n", "httpy.toml: no setting 'prot'; did you mean port"),
        ("max_body_byte = 80\n", "httpy.toml: no setting 'max_body_byte'; did you mean max_body_bytes"),
        ("zzz = 80\n", "httpy.toml: no setting 'zzz'"),
        ("config = 'a'\n", "httpy.toml: no setting 'config'"),
        ("port = '80x'\n", "httpy.toml: port is a number from 0 to 65535, not '80x'"),
        ("http3 = true\n", "http3=True is not there yet"),
        ("a = 1\nport = = 1\n", "httpy.toml: line 2: "),
        ("port = 80\nport = 81\n", "httpy.toml: line 2: duplicate key"),
    ],
)
def test_a_wrong_file_is_one_line(content: str, message: str, folder: Path) -> None:
    (folder / "httpy.toml").write_text(content)

    with pytest.raises(ConfigError) as refused:
        read()

    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_what_can_not_be_read_is_said(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^nope.toml can't be read: No such file"):
        find_file("nope.toml")
    (folder / "latin.toml").write_bytes(b'host = "\xe4"\n')
    with pytest.raises(ConfigError, match=r"^latin.toml is not UTF-8"):
        find_file("latin.toml")
    with pytest.raises(ConfigError, match="gunicorn's in Python is not read"):
        find_file("gunicorn.conf.py")
    (folder / "pyproject.toml").write_text("[tool]\nhttpy = 1\n")
    with pytest.raises(ConfigError, match=r"tool.httpy is a table, not 1"):
        find_file(None)


def test_toml_is_read() -> None:
    document = """
    text = "\\u00e9\\n"
    numbers = [1, 0x10, 0o17, 0b11, -1_000, 123456789012345678901234567890]
    floats = [1.5, inf, -1e3]
    truth = true
    time = 2026-11-20T16:13:30Z
    [table.inner]
    a = {b = [{c = 1}]}
    """

    assert _httpy.read_toml(document) == {
        "text": "é\n",
        "numbers": [1, 16, 15, 3, -1000, 123456789012345678901234567890],
        "floats": [1.5, float("inf"), -1000.0],
        "truth": True,
        "time": "2026-11-20T16:13:30Z",
        "table": {"inner": {"a": {"b": [{"c": 1}]}}},
    }


def test_toml_that_nests_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="line 1: "):
        _httpy.read_toml("a = " + "[" * 100_000)


# Several sources


def test_the_first_source_wins() -> None:
    assert merge({"port": 1}, {"port": 2, "grace": 3.0}) == {"port": 1, "grace": 3.0}


def test_what_says_where_to_listen_takes_the_place_of_what_others_say() -> None:
    assert merge({"bind": ["a:1"]}, {"port": 2}) == {"bind": ["a:1"]}
    assert merge({"port": 2}, {"bind": ["a:1"]}) == {"port": 2}
    assert merge({"port": 2}, {"host": "a"}, {"bind": ["a:1"]}) == {"port": 2, "host": "a"}


def test_one_source_says_it_once() -> None:
    with pytest.raises(ConfigError, match="bind and port both say where to listen"):
        merge({"bind": ["a:1"], "port": 1})


def test_native_defaults_stay_with_the_native_half() -> None:
    values = with_defaults({"port": 1})

    assert values["port"] == 1
    assert values["host"] == "127.0.0.1"
    assert set(values) & set(NATIVE) == set()

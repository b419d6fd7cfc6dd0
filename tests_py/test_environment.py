"""Files of `NAME=value` lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from httpy import ConfigError
from httpy.environment import read_env_file


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("export A=1", "1"),
        (" A = 1 ", "1"),
        ("A=", ""),
        ("A=a=b", "a=b"),
        ("A=pa$$word#1", "pa$$word#1"),
        ("A=1 # a comment", "1"),
        ("A='a b' # a comment", "a b"),
        ('A="a # b"', "a # b"),
        ("A='$HOME \\n'", "$HOME \\n"),
        ('A="a\\nb\\t\\"\\\\"', 'a\nb\t"\\'),
        ('A="\\x"', "\\x"),
        ("A=é", "é"),
        ("A=it's", "it's"),
    ],
)
def test_values_are_read(line: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text(f"# first\n\n{line}\n", encoding="utf-8")

    assert read_env_file(str(tmp_path / "env")) == {"A": value}


@pytest.mark.parametrize(
    "line", ["secret", "A B=secret", "=secret", "1A=secret", "A='secret", 'A="secret" more']
)
def test_a_wrong_line_is_named_and_not_shown(line: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text(f"B=1\n{line}\n")

    with pytest.raises(ConfigError) as refused:
        read_env_file(str(tmp_path / "env"))

    assert f"{tmp_path}/env, line 2: " in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_file_that_can_not_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: No such file"):
        read_env_file(str(tmp_path / "env"))
    (tmp_path / "latin").write_bytes(b"A=\xe4")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_env_file(str(tmp_path / "latin"))

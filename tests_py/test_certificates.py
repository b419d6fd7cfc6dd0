"""Where the certificate of a server comes from."""

from __future__ import annotations

import os
import sys

import pytest

from httpy import ConfigError
from httpy.certificates import cache_folder, check_plain, how_to_trust, with_certificate


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the folder is another one")
def test_the_cache_is_where_the_system_has_it():
    assert cache_folder({"XDG_CACHE_HOME": "/var/cache/x"}) == "/var/cache/x"
    assert cache_folder({}) == os.path.expanduser("~/.cache")
    assert cache_folder({"XDG_CACHE_HOME": "relative"}) == os.path.expanduser("~/.cache")


def test_settings_without_dev_cert_stay_as_they_are():
    assert with_certificate({"port": 80, "dev_cert": False}, {}) == {"port": 80, "dev_cert": False}
    assert how_to_trust({"dev_cert": False, "certfile": ["a.pem"]}) == ""


def test_dev_cert_is_a_certificate(tmp_path, monkeypatch):
    monkeypatch.setattr("httpy.certificates.cache_folder", lambda environment: str(tmp_path))

    given = with_certificate({"dev_cert": True}, {})

    folder = tmp_path / "httpy"
    assert given["certfile"] == [str(folder / "localhost.pem")]
    assert given["keyfile"] == [str(folder / "localhost-key.pem")]
    assert how_to_trust(given).endswith(f"trust {folder / 'localhost.pem'}, or curl --cacert it")


def test_a_folder_that_can_not_be_had_is_said(tmp_path, monkeypatch):
    (tmp_path / "httpy").write_text("")
    monkeypatch.setattr("httpy.certificates.cache_folder", lambda environment: str(tmp_path))

    with pytest.raises(ConfigError, match="the development certificate can't be kept in"):
        with_certificate({"dev_cert": True}, {})


def test_plain_addresses_have_to_make_sense():
    check_plain({"https_redirect": False}, [False])
    check_plain({"https_redirect": False}, [True])
    check_plain({"https_redirect": True, "certfile": ["a"]}, [True, False])
    for settings, plain in (
        ({"https_redirect": False, "certfile": ["a"]}, [True]),
        ({"https_redirect": 443}, [True]),
        ({"https_redirect": 443, "certfile": ["a"]}, [False]),
    ):
        with pytest.raises(ConfigError):
            check_plain(settings, plain)

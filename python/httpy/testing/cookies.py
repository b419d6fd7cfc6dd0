"""The cookies of a client: kept between requests, and sent to where they are for."""

from __future__ import annotations

import http.cookiejar
import urllib.request
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Optional


class Cookies(MutableMapping[str, str]):
    """Has a client's cookies, by their names.

    A cookie that was set with `cookies["name"] = "value"` goes to every path of every host; one that a response has
    set goes where that said.

    Args:
        cookies: Those to begin with.
    """

    def __init__(self, cookies: Optional[Mapping[str, str]] = None) -> None:
        self._jar = http.cookiejar.CookieJar()
        self._own: dict[str, str] = dict(cookies or {})

    def __getitem__(self, name: str) -> str:
        for cookie in self._jar:
            if cookie.name == name:
                return cookie.value or ""
        return self._own[name]

    def __setitem__(self, name: str, value: str) -> None:
        self._forget(name)
        self._own[name] = value

    def __delitem__(self, name: str) -> None:
        if name not in list(self):
            raise KeyError(name)
        self._forget(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._own, *(cookie.name for cookie in self._jar)]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"Cookies({dict(self)!r})"

    def _forget(self, name: str) -> None:
        self._own.pop(name, None)
        for cookie in [one for one in self._jar if one.name == name]:
            self._jar.clear(cookie.domain, cookie.path, cookie.name)

    def field_for(self, url: str, more: Optional[Mapping[str, str]] = None) -> Optional[str]:
        """Returns the `Cookie` field of a request, None without any.

        Args:
            url: Where it goes.
            more: Cookies of this request alone.
        """
        request = _request(url)
        self._jar.add_cookie_header(request)
        sent = dict(self._own)
        # The most specific path comes first (RFC 6265 §5.4), so that of two of a name both are sent.
        kept = [pair for pair in (request.get_header("Cookie") or "").split("; ") if pair]
        for pair in kept:
            sent.pop(pair.partition("=")[0], None)
        named = {**sent, **(more or {})}
        kept = [pair for pair in kept if pair.partition("=")[0] not in named]
        return "; ".join(kept + [f"{name}={value}" for name, value in named.items()]) or None

    def take(self, url: str, lines: list[str]) -> dict[str, str]:
        """Keeps what a response has set, and returns it.

        Args:
            url: Where it came from.
            lines: Its `Set-Cookie` fields.
        """
        if not lines:
            return {}
        answer, request = _Answer(lines), _request(url)
        # Reading what has expired removes it from the jar.
        found = {cookie.name: cookie.value or "" for cookie in self._jar.make_cookies(answer, request)}  # type: ignore[arg-type]
        self._jar.extract_cookies(answer, request)  # type: ignore[arg-type]
        for line in lines:
            self._own.pop(line.partition("=")[0].strip(), None)
        return found


def _request(url: str) -> urllib.request.Request:
    return urllib.request.Request(url.replace("ws", "http", 1) if url.startswith("ws") else url)


class _Answer:
    """What `http.cookiejar` needs of a response."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def info(self) -> _Answer:
        return self

    def get_all(self, name: str, default: list[str]) -> list[str]:
        return self._lines if name.lower() == "set-cookie" else default

"""What a request is made of: its URL, and its content in one of the forms that there are."""

from __future__ import annotations

import mimetypes
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional, Union
from urllib.parse import quote, urlencode, urlsplit

from .. import _httpy

# What a URI may have in a path and a query unescaped (RFC 3986 §3.3, §3.4), and what is escaped already.
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"
_QUERY_SAFE = _PATH_SAFE + "?"

Content = Union[bytes, Iterable[bytes]]


def join_url(base: str, url: str, params: Any = None) -> str:
    """Returns an absolute URL, percent-encoded, without a fragment.

    Args:
        base: Where relative ones begin; its path stays in front of theirs.
        url: The URL, absolute or relative.
        params: More for its query: a mapping or pairs.

    Raises:
        ValueError: if it is not one of http or https.
    """
    if "://" not in url.partition("?")[0]:
        is_path = url.startswith(("/", "?", "#")) or not url
        url = base.rstrip("/") + ("" if is_path else "/") + url
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.netloc:
        raise ValueError(f"a URL starts with http:// or https://, or with a slash; found {url!r}")
    query = "&".join(filter(None, [quote(parts.query, safe=_QUERY_SAFE), query_of(params)]))
    host = parts.netloc.rpartition("@")[2]
    path = quote(parts.path, safe=_PATH_SAFE) or "/"
    return f"{parts.scheme}://{host}{path}" + (f"?{query}" if query else "")


def query_of(params: Any) -> str:
    """Writes parameters as a query: a list has its name several times, True is `true`, None is left out."""
    if isinstance(params, str):
        return quote(params.lstrip("?"), safe=_QUERY_SAFE)
    return urlencode(list(_pairs(params)))


def _pairs(params: Any) -> Iterable[tuple[str, Any]]:
    if params is None:
        return
    for name, value in params.items() if hasattr(params, "items") else params:
        for one in value if isinstance(value, (list, tuple, set, frozenset)) else (value,):
            if one is not None:
                yield name, str(one).lower() if isinstance(one, bool) else one


def content_of(
    content: Any, json: Any, data: Any, files: Any, has_json: bool
) -> tuple[Content, Optional[str]]:
    """Makes the content of a request, and says what type it has, if that is clear.

    Raises:
        TypeError: if there are two contents, or one is of a wrong kind.
    """
    given = [name for name, is_there in (("content", content is not None), ("json", has_json)) if is_there]
    given += ["data or files"] if data is not None or files is not None else []
    if len(given) > 1:
        raise TypeError(f"a request has one content: {' or '.join(given)}")
    if has_json:
        return _httpy.json_dumps(json), "application/json"
    if files is not None:
        return _multipart(data, files)
    if data is not None and not isinstance(data, (str, bytes, bytearray, memoryview)):
        return query_of(data).encode(), "application/x-www-form-urlencoded"
    content = data if data is not None else content
    if content is None:
        return b"", None
    if isinstance(content, str):
        return content.encode(), "text/plain; charset=utf-8"
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content), None
    if hasattr(content, "read"):
        return iter(lambda: _as_bytes(content.read(65536)), b""), None
    if hasattr(content, "__iter__"):
        return (_as_bytes(chunk) for chunk in content), None
    raise TypeError(f"content is bytes, str, a file or an iterable of bytes, not {type(content).__name__}")


def _as_bytes(chunk: Union[bytes, str]) -> bytes:
    return chunk.encode() if isinstance(chunk, str) else bytes(chunk)


def _multipart(data: Any, files: Any) -> tuple[bytes, str]:
    """Writes fields and files as multipart/form-data (RFC 7578)."""
    boundary = secrets.token_hex(16)
    parts: list[bytes] = []
    for name, value in _pairs(data):
        parts += _part(
            boundary, [_disposition(name)], _as_bytes(value if isinstance(value, bytes) else str(value))
        )
    for name, file in files.items() if isinstance(files, Mapping) else files:
        for one in file if isinstance(file, list) else (file,):
            filename, body, kind, fields = _file(one)
            head = [_disposition(name, filename), f"Content-Type: {kind}"]
            parts += _part(boundary, head + [f"{key}: {value}" for key, value in fields.items()], body)
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def _part(boundary: str, head: Sequence[str], body: bytes) -> list[bytes]:
    return [f"--{boundary}\r\n".encode(), "\r\n".join(head).encode(), b"\r\n\r\n", body, b"\r\n"]


def _disposition(name: str, filename: Optional[str] = None) -> str:
    # As browsers escape them (WHATWG HTML, "multipart/form-data encoding algorithm"), which RFC 7578 §4.2 leaves open.
    def escaped(text: str) -> str:
        return text.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")

    written = f'Content-Disposition: form-data; name="{escaped(name)}"'
    return written if filename is None else f'{written}; filename="{escaped(filename)}"'


def _file(given: Any) -> tuple[str, bytes, str, Mapping[str, str]]:
    """Reads one of `files`: what it holds, or (filename, that, content type, more fields of the part)."""
    parts = given if isinstance(given, tuple) else (None, given)
    filename, given, kind, fields = (*parts, None, None)[:4]
    if filename is None:
        filename = os.path.basename(str(getattr(given, "name", "upload")))
    body = _as_bytes(given.read() if hasattr(given, "read") else given)
    kind = kind or mimetypes.guess_type(filename)[0] or "application/octet-stream"
    return filename, body, kind, fields or {}

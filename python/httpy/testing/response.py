"""A response, as a client sees it."""

from __future__ import annotations

import codecs
import contextlib
import http.client
from collections.abc import Callable, Iterator
from typing import Any, Optional

from .. import MutableHeaders, _httpy
from .. import Response as ServerResponse
from .connection import Fields, Response
from .errors import ConnectionBroken, StatusError

# What is read at once of a stream.
_CHUNK_BYTES = 65536


class ClientResponse:
    """Is a response.

    Attributes:
        status: The status code.
        reason: Its phrase.
        headers: Header fields: case-insensitive and multi-valued (`get`, `[]`, `getlist`).
        cookies: The cookies that it sets, by their names.
        url: What was asked for; after redirects, what answered.
        method: How.
        abort: Cuts the connection, from any thread.
        history: The redirects that led here.
        interim: Responses that came before it, early hints for example: (status, fields) each.
    """

    def __init__(
        self,
        found: Response,
        *,
        method: str,
        url: str,
        done: Callable[[bool], None],
        abort: Callable[[], None],
    ) -> None:
        self._found = found
        self._done: Optional[Callable[[bool], None]] = done
        # Ends a wait for content, from another thread.
        self.abort = abort
        self._content: Optional[bytes] = None
        self.status = found.status
        self.reason = found.reason
        self.headers: MutableHeaders = ServerResponse(b"", 200, found.getheaders()).headers
        self.cookies: dict[str, str] = {}
        self.url = url
        self.method = method
        self.history: list[ClientResponse] = []
        self.interim: list[tuple[int, Fields]] = found.interim

    def __repr__(self) -> str:
        return f"<ClientResponse {self.status} {self.reason}>"

    @property
    def status_code(self) -> int:
        """The status code."""
        return self.status

    @property
    def is_success(self) -> bool:
        """Whether the status is 200 to 299."""
        return 200 <= self.status < 300

    @property
    def is_redirect(self) -> bool:
        """Whether it leads somewhere else."""
        return self.status in (301, 302, 303, 307, 308) and "location" in self.headers

    def raise_for_status(self) -> ClientResponse:
        """Returns the response itself, if it is a success.

        Raises:
            StatusError: if not.
        """
        if not self.is_success:
            raise StatusError(self)
        return self

    @property
    def content(self) -> bytes:
        """The content. Of a stream it is there once that was read (`read`)."""
        if self._content is None:
            raise RuntimeError("the content of a stream has to be read first")
        return self._content

    @property
    def text(self) -> str:
        """The content as text, by the charset that its type names; UTF-8 if none."""
        return self.content.decode(self._charset(), "replace")

    def json(self) -> Any:
        """Returns what the content says in JSON.

        Raises:
            ValueError: if it is none.
        """
        return _httpy.json_loads(self.content)

    def _charset(self) -> str:
        for parameter in (self.headers.get("content-type") or "").split(";")[1:]:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "charset":
                try:
                    return codecs.lookup(value.strip().strip("\"'")).name
                except LookupError:
                    break
        return "utf-8"

    def read(self) -> bytes:
        """Reads the content to its end, and returns it.

        Raises:
            ConnectionBroken: if it breaks off.
            TimeoutError: if the server takes too long.
        """
        if self._content is None:
            self._content = b"".join(self.iter_bytes())
        return self._content

    def iter_bytes(self) -> Iterator[bytes]:
        """Iterates over the content of a stream as it comes.

        Raises:
            ConnectionBroken: if it breaks off.
            TimeoutError: if the server takes too long.
        """
        while chunk := self.read_some():
            yield chunk

    def iter_text(self) -> Iterator[str]:
        """Iterates over the content of a stream as text."""
        decoder = codecs.getincrementaldecoder(self._charset())("replace")
        for chunk in self.iter_bytes():
            if text := decoder.decode(chunk):
                yield text
        if text := decoder.decode(b"", True):
            yield text

    def iter_lines(self) -> Iterator[str]:
        """Iterates over the lines of a stream, without what ends them."""
        rest = ""
        for text in self.iter_text():
            *lines, rest = (rest + text).split("\n")
            yield from (line.removesuffix("\r") for line in lines)
        if rest:
            yield rest

    def read_some(self) -> bytes:
        """Waits for more of a stream, and returns it; nothing at its end.

        Raises:
            ConnectionBroken: if it breaks off.
            TimeoutError: if the server takes too long.
        """
        if self._done is None:
            return b""
        try:
            chunk = self._found.read1(_CHUNK_BYTES)
        except (http.client.HTTPException, ConnectionError, ValueError) as error:
            self.close()
            raise ConnectionBroken("the response broke off") from error
        except BaseException:
            self.close()
            raise
        if not chunk:
            # The standard library says nothing of it where a length was announced.
            is_short = bool(self._found.length) and self.method != "HEAD"
            self._finish(not is_short)
            if is_short:
                raise ConnectionBroken("the response broke off")
        return chunk

    def close(self) -> None:
        """Leaves the rest of the content, and with it the connection, which the server notices."""
        self._finish(False)

    def _finish(self, is_whole: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            with contextlib.suppress(OSError):
                self._found.close()
            done(is_whole)

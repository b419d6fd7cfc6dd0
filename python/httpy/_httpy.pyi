"""The native half of HTTPy. Everything public here is re-exported by `httpy`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Union, final

from typing_extensions import Self

# -- data ---------------------------------------------------------------------------------------------------------

@final
class Headers(Mapping[str, str]):
    """Read-only header fields: case-insensitive, multi-valued."""
    def __getitem__(self, name: str, /) -> str: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def getlist(self, name: str, /) -> list[str]: ...
    def multi_items(self) -> list[tuple[str, str]]: ...

@final
class QueryParams(Mapping[str, str]):
    """Read-only query parameters: multi-valued. `params["a"]` is the last value of `a`."""
    def __getitem__(self, name: str, /) -> str: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def getlist(self, name: str, /) -> list[str]: ...
    def multi_items(self) -> list[tuple[str, str]]: ...

@final
class MutableHeaders:
    """A response's header fields: case-insensitive, multi-valued."""
    def __getitem__(self, name: str, /) -> str: ...
    def __setitem__(self, name: str, value: str, /) -> None: ...
    def __delitem__(self, name: str, /) -> None: ...
    def __contains__(self, name: object, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def get(self, name: str, default: Any = None, /) -> Any: ...
    def getlist(self, name: str, /) -> list[str]: ...
    def add(self, name: str, value: str, /) -> None: ...
    def setdefault(self, name: str, value: str, /) -> str: ...
    def multi_items(self) -> list[tuple[str, str]]: ...

@final
class Request:
    """A request (read-only, filled lazily)."""

    method: str
    path: str
    raw_path: bytes
    query_string: bytes
    scheme: str
    http_version: Literal["1.0", "1.1", "2", "3"]
    version: str
    url: str
    headers: Headers
    query: QueryParams
    query_params: QueryParams
    cookies: dict[str, str]
    path_params: dict[str, Any]
    client: tuple[str, int] | None
    client_address: str
    server: tuple[str, int] | None
    body: bytes
    text: str
    json: Any
    form: Any
    files: Any
    state: Any
    app: Any
    id: str
    is_keep_alive: bool
    is_disconnected: bool
    route: str | None
    tls: Any
    def get_header(self, name: str, default: str | None = None) -> str | None: ...
    def get_query(self, name: str, default: str | None = None) -> str | None: ...
    def supports(self, feature: str, /) -> bool: ...
    def stream(self) -> Chunks: ...

@final
class Chunks:
    """Chunks of request content, for `async for`, or for `for` on a thread that may block."""

    def __iter__(self) -> Iterator[bytes]: ...
    def __next__(self) -> bytes: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def __anext__(self) -> Awaitable[bytes]: ...

class Response:
    """A response. Subclasses add ways to make one."""

    status: int
    headers: MutableHeaders
    body: bytes
    background: Any
    def __new__(
        cls,
        body: Any = b"",
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        *,
        media_type: str | None = None,
        background: Callable[[], Any] | None = None,
    ) -> Self: ...
    def set_cookie(self, name: str, value: str = "", **attributes: Any) -> None: ...
    def delete_cookie(self, name: str, **attributes: Any) -> None: ...

# -- the plan: worked out once by httpy.plan, carried out per request ---------------------------------------------

__version__: Final[str]
REQUIRED: Final[object]
"""Stands for "no default" in a Parameter."""

Parameter = tuple[str, str, Union[str, Callable[[Any], Any]], Any, bool]
"""(name, source, convert, default, many).

name: the argument's name. source: "request", "path", "query" or "body" (the parsed JSON body).
convert: "str" "int" "float" "bool" are converted in Rust; anything else is a callable taking the text (path, query) or
the parsed JSON (body) and raising ValueError/TypeError, which become a 422. An exception with an `errors()` method
(pydantic) has its errors reported with their own loc. default: REQUIRED or the value. many: query only, a list.
"""

@final
class Endpoint:
    """A Python function and how to call it.

    Parameters are passed by position in the order given; the last `keywords` of them by name. `label` names the handler
    in logs, as `module.function`.
    """
    def __new__(
        cls,
        function: Callable[..., Any],
        *,
        kind: Literal["inline", "async", "pooled"],
        context: Context,
        parameters: Sequence[Parameter] = (),
        keywords: int = 0,
        status: int = 200,
        stream: bool = False,
        max_body_bytes: int | None = None,
        label: str = "",
        middleware: Sequence[Any] = (),
    ) -> Endpoint: ...

@final
class Context:
    """What all endpoints of one app share: the app object, state, and how errors are answered."""
    def __new__(
        cls,
        app: Any,
        *,
        on_error: Callable[[Request, BaseException], Any] | None = None,
        statuses: Iterable[int] = (),
    ) -> Context: ...
    def set_state(self, values: Mapping[str, Any], /) -> None: ...

@final
class Routes:
    """The routing table of one app."""
    def __new__(
        cls,
        context: Context,
        *,
        middleware: Sequence[Any] = (),
        redirect_slashes: bool = False,
    ) -> Routes: ...
    def add(self, methods: Sequence[str] | None, pattern: str, endpoint: Endpoint, /) -> None: ...
    def mount(self, prefix: str, routes: Routes, /) -> None: ...

def build_path(pattern: str, params: Mapping[str, Any], /) -> str:
    """Builds the path of a pattern, percent-encoded."""

def pattern_parameters(pattern: str, /) -> list[tuple[str, str]]:
    """The (name, converter) pairs of a pattern; raises RouteError if it is malformed."""

def canonical_pattern(pattern: str, /) -> str:
    """The pattern in the spelling `/users/{id:int}`."""

# -- serving ------------------------------------------------------------------------------------------------------

@final
class Selector:
    """The selector of the `selector` driver."""
    def __new__(cls) -> Selector: ...

@final
class Core:
    """A bound server, run by one loop."""
    def __new__(cls, routes: Routes, config: Mapping[str, Any] = ..., /) -> Core: ...
    def bind(self, host: str, port: int, /) -> int: ...
    def start(self, selector: Selector | None, event_loop: Any, /) -> None: ...
    def stop(self, grace: float | None, done: Callable[[int], None], /) -> None: ...
    def close(self) -> None: ...

def defaults() -> dict[str, Any]:
    """Every configuration value with its default."""

def json_dumps(value: Any, /) -> bytes: ...
def json_layout(enabled: bool, /) -> bool:
    """Has the JSON writer read CPython's objects in place, or ask for everything; for tests. Returns which it does."""

def json_loads(data: bytes | bytearray | memoryview | str, /) -> Any: ...

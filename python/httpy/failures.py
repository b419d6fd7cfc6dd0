"""Finds the application's own answer to an error.

Rules:
1. The handler of the exception's class answers, or that of its nearest base class below `HTTPError` or
   `Exception`.
2. Then, in debug mode, a crash (anything but an `HTTPError`) gets its page.
3. Then the handler of the status answers (of a crash: 500), then that of `HTTPError`, or of a crash
   `Exception`. So who answers `Exception` means crashes, not a 404.
4. An `HTTPError` that nobody answers is what it says; any other exception is raised again, through the
   middleware, and if the app is mounted to the app outside. A crash is logged whoever answers it under 2 and 3.
5. A handler's answer has the error's status unless it says another.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, Optional, Union

from . import hints
from ._httpy import Request, Response
from .errors import HTTPError, RouteError

Answer = Callable[[Request, BaseException], Any]


class ErrorHandlers:
    """The error handlers of one app.

    Attributes:
        debug: Whether crashes are answered with a page that shows them.
    """

    def __init__(self, debug: bool) -> None:
        self.debug = debug
        self._by_status: dict[int, Answer] = {}
        self._by_class: dict[type, Answer] = {}

    @property
    def statuses(self) -> list[int]:
        """The statuses that have a handler."""
        return list(self._by_status)

    def __bool__(self) -> bool:
        return self.debug or bool(self._by_status) or bool(self._by_class)

    def add(self, key: Union[int, type[BaseException]], handler: Callable[..., Any]) -> None:
        """Registers a handler for a status or an exception class.

        Raises:
            RouteError: if the key is neither, is taken, or the handler can't be called with request and
                exception.
        """
        if isinstance(key, int) and not isinstance(key, bool) and 400 <= key <= 599:
            taken: dict[Any, Answer] = self._by_status
        elif isinstance(key, type) and issubclass(key, Exception):
            taken = self._by_class
        else:
            raise RouteError(f"app.error takes a status from 400 to 599 or an exception class, found {key!r}")
        if key in taken:
            raise RouteError(f"{hints.place(handler)}: {_shown(key)} has an error handler already")
        taken[key] = _with_arguments(handler)

    def __call__(self, request: Request, error: BaseException) -> Any:
        """Answers an error; what it returns may have to be awaited.

        Raises:
            BaseException: the error itself, if it is a crash that nobody answers.
        """
        answer, is_logged = self._find(error)
        if answer is None and isinstance(error, HTTPError):
            return Response({"detail": error.detail}, error.status, error.headers)
        if answer is None:
            raise error
        if is_logged:
            _log.error("%s %s failed", request.method, request.path, exc_info=error)
        result = answer(request, error)
        status = error.status if isinstance(error, HTTPError) else 500
        return _awaited(result, status) if inspect.isawaitable(result) else _with_status(result, status)

    def _find(self, error: BaseException) -> tuple[Optional[Answer], bool]:
        """Who answers an error, if anybody does, and whether it is to be logged."""
        if not isinstance(error, Exception):
            return None, False
        is_crash = not isinstance(error, HTTPError)
        widest = Exception if is_crash else HTTPError
        for cls in type(error).__mro__:
            if cls is widest:
                break
            if cls in self._by_class:
                return self._by_class[cls], False
        if is_crash and self.debug:
            from .debug import debug_page

            return debug_page, True
        status = error.status if isinstance(error, HTTPError) else 500
        return self._by_status.get(status) or self._by_class.get(widest), is_crash


async def _awaited(result: Any, status: int) -> Any:
    return _with_status(await result, status)


def _with_status(result: Any, status: int) -> Any:
    return result if isinstance(result, (Response, tuple)) else (result, status)


def _with_arguments(handler: Callable[..., Any]) -> Answer:
    """Lets a handler take request and exception, one of them, or nothing."""
    where = f"{hints.place(handler)}: error handler `{hints.name_of(handler)}`"
    if not callable(handler):
        raise RouteError(f"{where} can't be called")
    parameters = [
        parameter
        for parameter in inspect.signature(handler).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(parameters) > 2 or any(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters):
        raise RouteError(f"{where} takes (request, exception), one of them, or nothing")
    if not parameters:
        return lambda request, error: handler()
    if len(parameters) == 2:
        return handler
    if _is_for_error(parameters[0]):
        return lambda request, error: handler(error)
    return lambda request, error: handler(request)


def _is_for_error(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseException):
        return True
    says_error = isinstance(annotation, str) and annotation.endswith(("Error", "Exception"))
    return says_error or parameter.name in ("error", "exc", "exception", "err", "e", "ex")


def _shown(key: Any) -> str:
    return key.__name__ if isinstance(key, type) else f"status {key}"


_log = logging.getLogger("httpy.error")

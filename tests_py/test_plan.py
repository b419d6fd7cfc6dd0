"""Plans: what a handler needs is worked out at registration, or refused there."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import sys
import typing
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional, TypedDict, Union

import httpx
import pytest

from httpy import App, Request, RouteError
from httpy._httpy import REQUIRED
from httpy.bodies import Invalid
from httpy.plan import Plan, plan_handler

if typing.TYPE_CHECKING:
    from collections.abc import Hashable as OnlyForTypeCheckers

Serve = Callable[..., httpx.Client]


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Shape:
    name: str
    points: list[Point]
    center: Optional[Point] = None
    color: Color = Color.RED


@dataclasses.dataclass
class Node:
    value: int
    children: list[Node] = dataclasses.field(default_factory=list)


class Options(TypedDict, total=False):
    depth: int


class Search(Options):
    text: str


class Session:
    pass


def parameter(handler: Callable[..., Any], **options: Any) -> Any:
    """The only parameter of a plan."""
    (found,) = plan_handler(handler, **options).parameters
    return found


def parameter_of(annotation: Any) -> tuple[str, Any, bool]:
    """Source, converter and whether it takes many values, of a parameter with this annotation."""

    def handler(it: Any) -> None: ...

    handler.__annotations__ = {"it": annotation}
    _, source, convert, _, many = parameter(handler)
    return source, convert, many


def converted(annotation: Any, value: Any, *, source: str = "query") -> Any:
    """What a value becomes for a parameter with this annotation."""

    def handler(it: Any) -> None: ...

    handler.__annotations__ = {"it": annotation}
    _, found, convert, _, _ = parameter(handler)
    assert found == source
    return convert(value)


def mistakes(annotation: Any, value: Any, *, source: str = "body") -> list[tuple[Any, str]]:
    """The places and types of what is wrong with a value."""
    with pytest.raises(Invalid) as caught:
        converted(annotation, value, source=source)
    return [(error["loc"], error["type"]) for error in caught.value.errors()]


def refused(handler: Callable[..., Any], path: Any = (), **options: Any) -> str:
    with pytest.raises(RouteError) as caught:
        plan_handler(handler, path, route="GET /here", **options)
    return str(caught.value)


# What is what


def test_a_handler_without_parameters_needs_nothing() -> None:
    def handler() -> None: ...

    plan = plan_handler(handler)

    assert plan == Plan("pooled", (), 0, ())


def test_the_request_is_found_by_annotation_or_name() -> None:
    def by_name(request): ...  # type: ignore[no-untyped-def]
    def by_annotation(r: Request) -> None: ...
    def by_optional(r: Optional[Request] = None) -> None: ...
    def by_any(request: Any) -> None: ...

    found = [parameter(handler)[1] for handler in (by_name, by_annotation, by_optional, by_any)]

    assert found == ["request"] * 4


def test_a_request_annotated_otherwise_is_refused() -> None:
    def handler(request: Session) -> None: ...

    assert "`request` is the request, but is annotated Session" in refused(handler)


@pytest.mark.parametrize("annotation", [str, int, float, bool])
def test_plain_scalars_convert_in_rust(annotation: type) -> None:
    assert parameter_of(annotation) == ("query", annotation.__name__, False)


def test_a_parameter_without_annotation_is_text_or_what_its_default_is() -> None:
    def handler(a, b=None, c=10, d=1.5, e=False, f=Color.RED): ...  # type: ignore[no-untyped-def]

    found = plan_handler(handler).parameters

    assert found[:5] == (
        ("a", "query", "str", REQUIRED, False),
        ("b", "query", "str", None, False),
        ("c", "query", "int", 10, False),
        ("d", "query", "float", 1.5, False),
        ("e", "query", "bool", False, False),
    )
    assert found[5][2]("blue") is Color.BLUE


def test_optional_without_default_is_required() -> None:
    def handler(it: Optional[int]) -> None: ...

    assert parameter(handler) == ("it", "query", "int", REQUIRED, False)


def test_annotated_is_unwrapped() -> None:
    def handler(it: Annotated[Optional[int], "words"] = None) -> None: ...

    assert parameter(handler) == ("it", "query", "int", None, False)


def test_new_types_are_what_they_are_made_of() -> None:
    UserId = typing.NewType("UserId", int)

    assert parameter_of(UserId) == ("query", "int", False)


def test_lists_of_scalars_are_all_values_of_a_name() -> None:
    assert parameter_of(list[int]) == ("query", "int", True)
    assert parameter_of(Optional[list[str]]) == ("query", "str", True)
    assert parameter_of(typing.Sequence[float]) == ("query", "float", True)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="`int | None` is new in 3.10")
def test_unions_with_a_bar_work() -> None:
    assert parameter_of("int | None") == ("query", "int", False)


@pytest.mark.skipif(sys.version_info >= (3, 10), reason="`int | None` is new in 3.10")
def test_unions_with_a_bar_are_refused_with_a_reason_before_3_10() -> None:
    def handler(it: int | None) -> None: ...

    assert "unsupported operand" in refused(handler)


# Text to values


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (
            uuid.UUID,
            "12345678-1234-5678-1234-567812345678",
            uuid.UUID("12345678-1234-5678-1234-567812345678"),
        ),
        (datetime.date, "2026-01-31", datetime.date(2026, 1, 31)),
        (datetime.time, "12:30:00", datetime.time(12, 30)),
        (datetime.datetime, "2026-01-31T12:00:00", datetime.datetime(2026, 1, 31, 12)),
        (
            datetime.datetime,
            "2026-01-31T12:00:00Z",
            datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc),
        ),
        (
            # What `+00:00` is after a query string was decoded.
            datetime.datetime,
            "2026-01-31T12:00:00 00:00",
            datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc),
        ),
        (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
        (Color, "blue", Color.BLUE),
        (Level, "2", Level.HIGH),
        (Literal["a", 1, True], "1", 1),
        (Literal["a", 1, True], "true", True),
        (Union[int, str], "12", 12),
        (Union[str, int], "12", 12),
        (Union[int, str], "x", "x"),
        (Union[int, float], "1e3", 1000.0),
        (Union[int, float], "-.5", -0.5),
        (set[int], ["1", "2", "1"], {1, 2}),
        (frozenset[str], ["a"], frozenset({"a"})),
        (tuple[int, ...], ["1", "2"], (1, 2)),
        (tuple[int, str], ["1", "2"], (1, "2")),
        (list[Color], ["red", "blue"], [Color.RED, Color.BLUE]),
    ],
)
def test_text_becomes_the_value(annotation: Any, text: Any, value: Any) -> None:
    found = converted(annotation, text)

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text", "message"),
    [
        (uuid.UUID, "x", "expected a UUID"),
        (datetime.date, "31.1.2026", "expected an ISO 8601 date"),
        (datetime.datetime, "Z", "expected an ISO 8601 date and time"),
        (decimal.Decimal, "x", "expected a decimal number"),
        (decimal.Decimal, "NaN", "expected a finite decimal number"),
        (Color, "green", "expected red or blue"),
        (Literal["a", "b", "c"], "d", "expected a, b or c"),
        (Union[int, float], "1_0", "expected a whole number, or expected a finite number"),
        (tuple[int, str], ["1"], "expected 2 values, found 1"),
    ],
)
def test_text_that_does_not_fit_says_what_is_expected(annotation: Any, text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        converted(annotation, text)


WORDS = [
    "true",
    "YES",
    "on",
    "t",
    "y",
    "1",
    "0",
    "false",
    "No",
    "off",
    "f",
    "n",
    "wahr",
    "-1",
    "+0",
    "07",
    "",
]
NUMBERS = [
    "1e3",
    "-.5",
    "1.",
    ".",
    "1e999",
    "-1e999",
    "inf",
    "nan",
    "1_0",
    " 1",
    "\u0663",
    "9" * 19,
    "9" * 4300,
]
NUMBERS += ["9" * 4301, "1e", "0x1", "+", "--1", "1e+5", "5e-324"]


@pytest.mark.parametrize("scalar", [int, float, bool])
def test_a_union_and_a_tuple_take_the_words_that_a_scalar_takes(scalar: type, serve: Serve) -> None:
    app = App()
    for path, annotation in (
        ("/alone", scalar),
        ("/united", Union[scalar, Color]),
        ("/many", tuple[scalar, ...]),  # type: ignore[valid-type]
    ):

        def handler(it: Any) -> str:
            return repr(it[0] if isinstance(it, tuple) else it)

        handler.__annotations__ = {"it": annotation}
        app.get(path)(handler)
    client = serve(app)

    def answer(path: str, text: str) -> Any:
        response = client.get(path, params={"it": text})
        return response.text if response.status_code == 200 else response.status_code

    answers = {
        text: [answer(path, text) for path in ("/alone", "/united", "/many")] for text in WORDS + NUMBERS
    }

    assert {text: found for text, found in answers.items() if len(set(found)) > 1} == {}
    accepted = {bool: ("y", "True"), int: ("07", "7"), float: ("1e+5", "100000.0")}
    text, value = accepted[scalar]
    assert answers[text][0] == value
    assert answers["wahr"][0] == 422


def test_every_value_of_a_list_is_checked() -> None:
    assert mistakes(set[int], ["1", "x", "2", "y"], source="query") == [
        ((1,), "value_error"),
        ((3,), "value_error"),
    ]


# Path


@pytest.mark.parametrize(
    ("converter", "annotation", "found"),
    [
        ("str", None, "str"),
        ("str", int, "int"),
        ("path", None, "str"),
        ("int", None, "int"),
        ("int", int, "int"),
        ("int", str, "str"),
        ("int", float, "float"),
        ("int", Optional[int], "int"),
        ("float", None, "float"),
        ("uuid", str, "str"),
    ],
)
def test_the_pattern_decides_what_a_path_parameter_is(converter: str, annotation: Any, found: str) -> None:
    def handler(id): ...  # type: ignore[no-untyped-def]

    if annotation is not None:
        handler.__annotations__ = {"id": annotation}

    assert parameter(handler, path=[("id", converter)]) == ("id", "path", found, REQUIRED, False)


def test_uuids_and_enums_come_from_the_path() -> None:
    def handler(id, color: Color): ...  # type: ignore[no-untyped-def]

    (_, _, to_id, _, _), (_, _, to_color, _, _) = plan_handler(
        handler, [("id", "uuid"), ("color", "str")]
    ).parameters

    assert to_id("12345678-1234-5678-1234-567812345678").int >> 96 == 0x12345678
    assert to_color("red") is Color.RED


def test_a_path_parameter_wins_whatever_it_looks_like() -> None:
    def handler(request: str, item: int) -> None: ...

    found = plan_handler(handler, [("request", "str"), ("item", "str")]).parameters

    assert [source for _, source, *_ in found] == ["path", "path"]


def test_path_parameters_that_nobody_takes_are_fine() -> None:
    def handler() -> None: ...

    assert plan_handler(handler, [("id", "int")]).parameters == ()


@pytest.mark.parametrize(
    ("converter", "annotation"),
    [("int", bytes), ("int", bool), ("int", uuid.UUID), ("float", int), ("uuid", int)],
)
def test_an_annotation_that_contradicts_the_pattern_is_refused(converter: str, annotation: Any) -> None:
    def handler(id: Any) -> None: ...

    handler.__annotations__ = {"id": annotation}

    assert f"annotated {annotation.__name__}" in refused(handler, [("id", converter)]) or (
        f"{annotation.__name__} can't be made of text" in refused(handler, [("id", converter)])
    )


# Bodies


def test_a_dataclass_is_the_body() -> None:
    body = {"name": "line", "points": [{"x": 1}, {"x": 2, "y": 3}], "color": "blue", "unknown": 1}

    assert converted(Shape, body, source="body") == Shape("line", [Point(1), Point(2, 3)], color=Color.BLUE)


def test_a_class_may_contain_itself() -> None:
    body = {"value": 1, "children": [{"value": 2}, {"value": 3, "children": [{"value": 4}]}]}

    assert converted(Node, body, source="body") == Node(1, [Node(2), Node(3, [Node(4)])])


def test_every_mistake_in_a_body_has_its_place() -> None:
    body = {"points": [{"x": "1"}, {}, 7], "center": {"x": 1, "y": True}, "color": "green"}

    assert mistakes(Shape, body) == [
        (("points", 0, "x"), "int_type"),
        (("points", 1, "x"), "missing"),
        (("points", 2), "dict_type"),
        (("center", "y"), "int_type"),
        (("color",), "enum"),
        (("name",), "missing"),
    ]


def test_a_typed_dict_is_the_body() -> None:
    assert converted(Search, {"text": "a", "depth": 2, "more": 1}, source="body") == {"text": "a", "depth": 2}
    assert mistakes(Search, {"depth": None}) == [(("depth",), "int_type"), (("text",), "missing")]


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        (dict, {"a": 1}, {"a": 1}),
        (list, [1, "a"], [1, "a"]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (list[Point], [{"x": 1}], [Point(1)]),
        (list[dict[str, Any]], [{"x": 1}], [{"x": 1}]),
        (Optional[Point], None, None),
        (Union[Point, Node], {"value": 1}, Node(1)),
    ],
)
def test_json_of_other_shapes_is_the_body(annotation: Any, value: Any, result: Any) -> None:
    assert converted(annotation, value, source="body") == result


def test_fields_of_a_body_are_converted_by_their_annotation() -> None:
    @dataclasses.dataclass
    class Everything:
        when: datetime.datetime
        id: uuid.UUID
        price: decimal.Decimal
        ratio: float
        level: Level
        kind: Literal["a", 1]
        pair: tuple[int, str]
        many: tuple[int, ...]
        unique: set[str]
        anything: Any
        nothing: None

    body = {
        "when": "2026-01-31T12:00:00",
        "id": "12345678-1234-5678-1234-567812345678",
        "price": 1.5,
        "ratio": 2,
        "level": 2,
        "kind": 1,
        "pair": [1, "a"],
        "many": [1, 2],
        "unique": ["a", "a"],
        "anything": {"a": [None]},
        "nothing": None,
    }
    Everything.__annotations__ = {
        name: eval(hint) if isinstance(hint, str) else hint
        for name, hint in Everything.__annotations__.items()
    }

    found = converted(Everything, body, source="body")

    assert found == Everything(
        datetime.datetime(2026, 1, 31, 12),
        uuid.UUID("12345678-1234-5678-1234-567812345678"),
        decimal.Decimal("1.5"),
        2.0,
        Level.HIGH,
        1,
        (1, "a"),
        (1, 2),
        {"a"},
        {"a": [None]},
        None,
    )
    assert type(found.ratio) is float


def test_true_is_no_number_in_a_body() -> None:
    assert mistakes(Point, {"x": True}) == [(("x",), "int_type")]
    assert mistakes(dict[str, Literal[1]], {"a": True}) == [(("a",), "literal_error")]


def test_what_post_init_refuses_is_a_mistake_in_the_body() -> None:
    @dataclasses.dataclass
    class Range:
        low: int
        high: int

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    with pytest.raises(ValueError, match="low is above high"):
        converted(Range, {"low": 2, "high": 1}, source="body")


def test_msgspec_structs_are_the_body() -> None:
    msgspec = pytest.importorskip("msgspec")
    Item = msgspec.defstruct("Item", [("name", str), ("prices", list[int])])

    assert converted(Item, {"name": "a", "prices": [1]}, source="body") == Item("a", [1])
    assert mistakes(Item, {"name": "a", "prices": [1, "x"]}) == [(("prices", 1), "value_error")]


def test_pydantic_models_are_the_body() -> None:
    pydantic = pytest.importorskip("pydantic")
    Item = pydantic.create_model("Item", name=(str, ...), price=(int, 0))

    assert converted(Item, {"name": "a"}, source="body") == Item(name="a")
    assert mistakes(Item, {"price": "x"}) == [(("name",), "missing"), (("price",), "int_parsing")]
    assert mistakes(list[Item], [{}]) == [((0, "name"), "missing")]


def test_there_is_one_body() -> None:
    def handler(a: Point, b: dict[str, Any]) -> None: ...

    assert "parameter `b`: there is one body, and `a` takes it already" in refused(handler)


def test_a_body_that_json_cannot_hold_is_refused() -> None:
    @dataclasses.dataclass
    class Bad:
        session: Session

    Bad.__annotations__ = {"session": Session}

    def handler(bad: Any) -> None: ...

    handler.__annotations__ = {"bad": Bad}

    assert "Bad.session: Session is nothing that JSON can hold" in refused(handler)


# How it is called


def test_arguments_are_passed_by_position_unless_they_can_only_be_named() -> None:
    def handler(a: int, /, b: int, *, c: int) -> None: ...

    plan = plan_handler(handler)

    assert [name for name, *_ in plan.parameters] == ["a", "b", "c"]
    assert plan.keywords == 1


def test_what_nothing_fills_is_left_to_its_default() -> None:
    def handler(a: int, session: Session = Session(), b: int = 1) -> None: ...  # noqa: B008

    plan = plan_handler(handler)

    assert [name for name, *_ in plan.parameters] == ["a", "b"]
    assert plan.keywords == 1


def test_decorated_functions_show_what_they_wrap() -> None:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @decorate
    async def handler(id: int, request: Request) -> None: ...

    plan = plan_handler(handler)

    assert plan.kind == "async"
    assert [(name, source) for name, source, *_ in plan.parameters] == [
        ("id", "query"),
        ("request", "request"),
    ]
    assert plan.keywords == 2


def test_a_wrapper_gets_its_own_parameters_as_it_names_them() -> None:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(first: Any, *args: Any, **kwargs: Any) -> Any:
            return function(first, *args, **kwargs)

        return wrapper

    @decorate
    def handler(request: Request, id: int) -> None: ...

    assert plan_handler(handler).keywords == 1


def test_every_kind_of_callable_works() -> None:
    class Callable_:
        def method(self, a: int) -> None: ...
        async def __call__(self, a: int) -> None: ...
        @classmethod
        def of_class(cls, a: int) -> None: ...
        @staticmethod
        def static(a: int) -> None: ...

    async def function(b: str, a: int) -> None: ...

    one = Callable_()
    handlers = (one, one.method, one.of_class, one.static, functools.partial(function, "x"))
    plans = [plan_handler(handler) for handler in handlers]

    assert [plan.parameters for plan in plans] == [(("a", "query", "int", REQUIRED, False),)] * 5
    assert [plan.kind for plan in plans] == ["async", "pooled", "pooled", "pooled", "async"]


def test_generators_run_where_their_kind_of_function_runs() -> None:
    def generator() -> Any:
        yield ""

    async def asynchronous() -> Any:
        yield ""

    assert plan_handler(generator).kind == "pooled"
    assert plan_handler(generator, inline=True).kind == "inline"
    assert plan_handler(asynchronous).kind == "async"


def test_annotations_that_nobody_needs_are_left_alone() -> None:
    def handler(a: int) -> OnlyForTypeCheckers: ...  # type: ignore[empty-body]

    assert parameter(handler)[2] == "int"


# What is refused


def test_what_nothing_fills_is_refused_with_file_line_handler_and_parameter() -> None:
    def handler(session: Session) -> None: ...

    message = refused(handler)

    assert message.startswith(f"{__file__}:{handler.__code__.co_firstlineno}: handler `handler` of GET /here")
    assert "parameter `session`: nothing in a request is a Session. What works: " in message


def test_names_that_only_a_function_knows_are_refused() -> None:
    class Local:
        pass

    def handler(it: Local) -> None: ...

    assert "Names in it must be at module level" in refused(handler)


def test_arguments_without_names_are_refused() -> None:
    def args(*args: Any) -> None: ...
    def kwargs(**kwargs: Any) -> None: ...

    assert "`*args` can't be filled: name the parameters you need" in refused(args)
    assert "`**kwargs` can't be filled: name the parameters you need" in refused(kwargs)


def test_a_position_after_one_left_to_its_default_is_refused() -> None:
    def handler(session: Session = Session(), a: int = 1, /) -> None: ...  # noqa: B008

    assert "parameter `a`: it comes after one that is left to its default" in refused(handler)


def test_inline_is_for_plain_functions() -> None:
    async def handler() -> None: ...

    assert "inline=True is for plain `def` handlers" in refused(handler, inline=True)


def test_a_parsed_body_is_not_there_when_a_stream_starts() -> None:
    def handler(point: Point) -> None: ...

    assert "stream=True starts the handler before the body has arrived" in refused(handler, stream=True)


def test_what_cannot_be_called_is_no_handler() -> None:
    with pytest.raises(RouteError, match="a handler is a function or another callable, found 7"):
        plan_handler(7, route="GET /here")  # type: ignore[arg-type]

"""JSON at the door: `httpy._httpy.json_dumps` and `json_loads`, held against the `json` module."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import gc
import json
import math
import re
import struct
import sys
import threading
import tracemalloc
import types
import typing
import uuid

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from httpy._httpy import json_dumps, json_layout, json_loads

MAX_DEPTH = 256

# Where objects are read in place: src/json/layout.rs.
LAYOUT_IS_KNOWN = (
    sys.implementation.name == "cpython"
    and (3, 9) <= sys.version_info < (3, 14)
    and sys.maxsize == 2**63 - 1
    and sys.byteorder == "little"
    and getattr(sys, "_is_gil_enabled", lambda: True)()
)


@pytest.fixture(autouse=True, scope="module", params=[True, False], ids=["in place", "by the interpreter"])
def layout(request: pytest.FixtureRequest) -> typing.Iterator[None]:
    """Runs every test both ways."""
    assert json_layout(request.param) is (LAYOUT_IS_KNOWN and request.param)
    yield
    json_layout(True)


def name_of(value: object) -> str:
    """The name of a parameter: the same in every process, so that a failed test is found again."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


# Lone surrogates too: `json` lets them through, and so do we.
any_text = st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF, exclude_categories=()))
whole_text = st.text()
finite = st.floats(allow_nan=False, allow_infinity=False)
integers = (
    st.integers()
    | st.integers(-(10**400), 10**400)
    | st.sampled_from([2**63, 2**63 - 1, -(2**63), -(2**63) - 1, 2**64, 10**18, 10**19])
)
scalars = st.none() | st.booleans() | integers | finite | any_text
json_keys = any_text | st.integers() | finite | st.booleans() | st.none()


def trees(scalars: st.SearchStrategy, keys: st.SearchStrategy) -> st.SearchStrategy:
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner),
        max_leaves=30,
    )


def same(left: object, right: object) -> bool:
    """Equality that tells 1 from 1.0 and True, and 0.0 from -0.0, and minds the order of keys."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    return left == right


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth - 1):
        value = [value]
    return value


# --- equality with the json module --------------------------------------------------------------------------


@given(trees(scalars, json_keys))
@example({1e16: 1e16, 1e22: -0.0, 5e-324: 1.7976931348623157e308})
@example({"\ud800": "\udfff\ud83d\ude00", 'é\x00\x1f\x7f"\\/\b\f\n\r\t\u2028': "😀"})
@example([10**18, -(10**18), 10**18 - 1, 2**63, -(2**63), 0, -1])
def test_writes_what_json_writes(value: object) -> None:
    written = json_dumps(value)

    assert same(json.loads(written), json.loads(json.dumps(value)))


@given(trees(st.none() | st.booleans() | integers | whole_text, whole_text))
def test_writes_the_very_bytes_of_json_where_no_float_is_in_it(value: object) -> None:
    assert json_dumps(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@given(trees(scalars, json_keys), st.booleans(), st.sampled_from([None, 0, 2, "\t"]))
def test_reads_what_json_writes(value: object, ascii_only: bool, indent: int | str | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)

    assert same(json_loads(text), json.loads(text))


@given(trees(scalars, json_keys))
def test_reads_what_it_wrote(value: object) -> None:
    written = json_dumps(value)

    assert same(json_loads(written), json.loads(written))


@given(finite)
@example(1e16)
@example(123456789012345680.0)
@example(9007199254740993.0)
@example(2.2250738585072014e-308)
def test_floats_survive_a_round_trip_bit_by_bit(value: float) -> None:
    assert same(json_loads(json_dumps(value)), value)
    assert same(json_loads(repr(value)), value)
    assert same(float(json_dumps(value)), value)
    assert any(mark in json_dumps(value) for mark in (b".", b"e"))


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True))
@example("9007199254740993e0")
@example("0.000000000000000000000000000000000000000001e40")
@example("179769313486231580793728971405301e277")
@example("0e999")
@example("-0")
@example("-0.0")
@example("0.1e-400")
@example("18446744073709551616.0")
def test_reads_any_number_as_json_does(text: str) -> None:
    expected = json.loads(text)

    if isinstance(expected, float) and math.isinf(expected):
        with pytest.raises(json.JSONDecodeError, match="too large for a float"):
            json_loads(text)
    else:
        assert same(json_loads(text), expected)


def outcome(load: typing.Callable, data: str | bytes) -> tuple:
    try:
        return True, load(data)
    except ValueError:
        return False, None


syntax = st.text(st.sampled_from('{}[]:,"\\/utfn0123456789.eE+- \n\t\x00abé\ud800'), max_size=12)


@settings(max_examples=2000)
@given(syntax)
@example('{"a":1,}')
@example("[1,]")
@example("[1 2]")
@example("01")
@example("-")
@example("1.")
@example(".5")
@example("1e")
@example("+1")
@example("nul")
@example("nulll")
@example('"\\x"')
@example('"\\u12"')
@example('"\\u+123"')
@example('"\\ud83d\\u0041"')
@example('"\\ud83d\\ud83d\\ude00"')
@example('"\x1f"')
@example("\ufeff1")
@example("")
@example(" ")
@example('{"a" 1}')
@example("{1:2}")
@example('{"a":1 "b":2}')
@example("\x0b1")
@example("\xa01")
def test_refuses_and_reads_the_same_texts_as_json(text: str) -> None:
    accepted, value = outcome(json_loads, text)
    expected, expected_value = outcome(lambda data: json.loads(data, parse_constant=refuse_constant), text)

    if expected and not accepted:
        assert overflows(expected_value), text
    else:
        assert accepted == expected, text
        assert same(value, expected_value)


@given(trees(scalars, any_text), st.data())
def test_agrees_with_json_about_damaged_documents(value: object, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    at = data.draw(st.integers(0, len(text) - 1))
    damage = data.draw(st.sampled_from(["", '"', "\\", "{", "]", ",", "\x00", "0", "e", "\ud800"]))
    damaged = text[:at] + damage + text[at + 1 :]

    test_refuses_and_reads_the_same_texts_as_json.hypothesis.inner_test(damaged)


def refuse_constant(name: str) -> None:
    raise ValueError(name)


def overflows(value: object) -> bool:
    if isinstance(value, float):
        return math.isinf(value)
    if isinstance(value, (list, dict)):
        return any(map(overflows, value.values() if isinstance(value, dict) else value))
    return False


@given(
    st.binary(max_size=12)
    | whole_text.map(lambda text: ('"' + text + '"').encode()).flatmap(
        lambda whole: st.integers(0, len(whole)).map(lambda at: whole[:at] + b"\xff" + whole[at:])
    )
)
@example(b'"\xed\xa0\x80"')
@example(b'"\\ud800\xed\xa0\x80"')
@example(b'"\\n\xff"')
@example(b'{"\xff":1}')
@example(b'"\xc0\xaf"')
@example(b'"\xf4\x90\x80\x80"')
def test_bytes_that_are_not_utf8_are_refused(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        with pytest.raises(json.JSONDecodeError):
            json_loads(data)


# --- what json accepts and we refuse: the whole list --------------------------------------------------------


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "[NaN]", "1e999", "-1e999"])
def test_refuses_numbers_that_no_finite_float_holds(text: str) -> None:
    json.loads(text)

    with pytest.raises(json.JSONDecodeError):
        json_loads(text)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_refuses_encodings_other_than_utf8(encoding: str) -> None:
    data = '{"a": 1}'.encode(encoding)
    json.loads(data)

    with pytest.raises(json.JSONDecodeError):
        json_loads(data)


def test_refuses_surrogates_encoded_in_bytes() -> None:
    json.loads(b'"\xed\xa0\x80"')

    with pytest.raises(json.JSONDecodeError, match=r"line 1 column 2 \(byte 1\): invalid UTF-8"):
        json_loads(b'"\xed\xa0\x80"')


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_reads_to_the_depth_limit_and_not_past_it(opening: str, closing: str) -> None:
    def document(depth: int) -> str:
        return opening * (depth - 1) + "[]" + closing * (depth - 1)

    assert json_loads(document(MAX_DEPTH)) == json.loads(document(MAX_DEPTH))
    with pytest.raises(json.JSONDecodeError, match="nested deeper than 256 levels"):
        json_loads(document(MAX_DEPTH + 1))
    with pytest.raises(json.JSONDecodeError):
        json_loads(opening * 1_000_000)


# --- reading ------------------------------------------------------------------------------------------------


def test_reads_every_kind_of_buffer() -> None:
    data = '{"é": [1]}'

    for source in (data, data.encode(), bytearray(data.encode()), memoryview(data.encode())):
        assert json_loads(source) == {"é": [1]}
    assert json_loads(memoryview(b"[x1x]x")[::2]) == [1]
    with pytest.raises(TypeError, match="not int"):
        json_loads(1)


def test_skips_a_byte_order_mark_before_bytes_as_json_does() -> None:
    assert json_loads(b"\xef\xbb\xbf[1]") == json.loads(b"\xef\xbb\xbf[1]") == [1]
    with pytest.raises(json.JSONDecodeError):
        json_loads(b"\xef\xbb\xbf\xef\xbb\xbf[1]")
    with pytest.raises(json.JSONDecodeError):
        json_loads("\ufeff[1]")


def test_of_a_repeated_key_the_last_value_wins_in_the_first_place() -> None:
    text = '{"a": 1, "b": 2, "a": 3}'

    assert list(json_loads(text).items()) == list(json.loads(text).items()) == [("a", 3), ("b", 2)]


def test_keys_that_share_a_place_in_the_cache_stay_apart() -> None:
    keys = [f"same_head{n}{tail}same_tail" for n in range(2000) for tail in ("", "_", "é")] + [
        "k" * n for n in range(80)
    ]
    text = json.dumps([{key: 1} for key in keys] * 2)

    assert json_loads(text) == json.loads(text)


def test_an_error_names_the_place() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json_loads('{"é":\n "x" 1}'.encode())

    error = caught.value
    assert str(error) == "invalid JSON at line 2 column 6 (byte 12): expected ',' or '}'"
    assert (error.pos, error.lineno, error.colno, error.msg) == (11, 2, 6, "expected ',' or '}'")
    assert error.doc == '{"é":\n "x" 1}'
    assert isinstance(error, ValueError)


def test_an_error_behind_a_byte_order_mark_counts_it_in_bytes_only() -> None:
    with pytest.raises(json.JSONDecodeError, match=r"line 1 column 1 \(byte 3\): expected a value"):
        json_loads(b"\xef\xbb\xbfx")


@pytest.mark.skipif(not hasattr(sys, "get_int_max_str_digits"), reason="this Python has no limit")
def test_integers_past_the_digit_limit_are_refused_clearly() -> None:
    digits = "9" * (sys.get_int_max_str_digits() + 1)

    with pytest.raises(json.JSONDecodeError, match="too many digits"):
        json_loads(f"[{digits}]")
    with pytest.raises(ValueError, match=r"too many digits at \$\.a: see sys"):
        json_dumps({"a": 1 << 20000})
    assert json_loads(digits[1:]) == int(digits[1:])
    assert json_dumps(int(digits[1:])) == digits[1:].encode()


# --- writing: the types -------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Name(str, enum.Enum):
    ADA = "ada"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(typing.NamedTuple):
    x: int
    y: float


class Movie(typing.TypedDict):
    title: str


@dataclasses.dataclass
class User:
    id: int
    tags: list
    kind: typing.ClassVar[str] = "user"
    seed: dataclasses.InitVar[int] = 0
    _hidden: str = "shown"


class Text(str):
    def __str__(self) -> str:
        return "never asked"


class Number(int):
    def __repr__(self) -> str:
        return "never asked"

    __str__ = __repr__


class Real(float):
    def __repr__(self) -> str:
        return "never asked"


class Registry(collections.abc.Mapping):
    def __getitem__(self, key: str) -> int:
        return {"a": 1}[key]

    def __iter__(self) -> typing.Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


UTC = datetime.timezone.utc
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, '"red"'),
        (Colour.PAIR, "[1,2]"),
        (Level.HIGH, "3"),
        (Name.ADA, '"ada"'),
        (Access.READ | Access.WRITE, "3"),
        (Point(1, 2.0), "[1,2.0]"),
        (Movie(title="Up"), '{"title":"Up"}'),
        (User(1, ["a"]), '{"id":1,"tags":["a"],"_hidden":"shown"}'),
        (datetime.datetime(2024, 2, 29, 1, 2, 3, 4), '"2024-02-29T01:02:03.000004"'),
        (datetime.datetime(2024, 2, 29, tzinfo=UTC), '"2024-02-29T00:00:00+00:00"'),
        (datetime.date(2024, 2, 29), '"2024-02-29"'),
        (datetime.time(1, 2, 3), '"01:02:03"'),
        (ID, '"12345678-1234-5678-1234-567812345678"'),
        (decimal.Decimal("0.10"), '"0.10"'),
        ({1}, "[1]"),
        (frozenset(), "[]"),
        (Text('a"'), '"a\\""'),
        (Number(7), "7"),
        (Number(10**30), "1" + "0" * 30),
        (Real(1.5), "1.5"),
        (collections.OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
        (collections.defaultdict(int, a=1), '{"a":1}'),
        (collections.Counter("aab"), '{"a":2,"b":1}'),
        (types.MappingProxyType({"a": 1}), '{"a":1}'),
        (Registry(), '{"a":1}'),
        ((), "[]"),
        ([[], {}, "", None, True, False], '[[],{},"",null,true,false]'),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        ("\ud800x\udc00", '"\\ud800x\\udc00"'),
        ("/\x7f\u2028é😀", '"/\x7f\u2028é😀"'),
    ],
    ids=name_of,
)
def test_writes_each_type(value: object, expected: str) -> None:
    assert json_dumps(value) == expected.encode()
    assert json_dumps({"a": [value, 1]}) == f'{{"a":[{expected},1]}}'.encode()


def test_an_ordered_dict_keeps_its_own_order() -> None:
    value = collections.OrderedDict(a=1, b=2)
    value.move_to_end("a")

    assert json_dumps(value) == b'{"b":2,"a":1}'


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (1, "1"),
        (10**30, str(10**30)),
        (True, "true"),
        (None, "null"),
        (1e16, "1e+16"),
        (Real(0.5), "0.5"),
        (Number(7), "7"),
        (Text("a"), "a"),
        (Level.HIGH, "3"),
        (Name.ADA, "ada"),
        (Colour.RED, "red"),
        (ID, str(ID)),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.time(1), "01:00:00"),
        (datetime.datetime(2024, 2, 29), "2024-02-29T00:00:00"),
    ],
    ids=name_of,
)
def test_writes_each_type_of_key(key: object, expected: str) -> None:
    assert json_dumps({key: 0}) == f'{{"{expected}":0}}'.encode()


@pytest.mark.parametrize("key", [(1,), b"a", Colour.PAIR, decimal.Decimal(1), frozenset()], ids=name_of)
def test_refuses_other_keys(key: object) -> None:
    with pytest.raises(
        TypeError, match=r"key of type \w+ is not JSON serializable at \$\.a: keys are str, int,"
    ):
        json_dumps({"a": {key: 0}})


def test_writes_a_dataclass_with_slots_and_fields_without_defaults() -> None:
    made = dataclasses.make_dataclass("Made", ["a", "b"], namespace={"__slots__": ("a", "b")})

    assert json_dumps(made(1, {2})) == b'{"a":1,"b":[2]}'


def test_writes_pydantic_models() -> None:
    pydantic = pytest.importorskip("pydantic")
    inner = pydantic.create_model("Inner", when=(datetime.datetime, ...), note=(str, None))
    outer = pydantic.create_model("Outer", inners=(list[inner] if sys.version_info >= (3, 9) else list, ...))
    value = outer(inners=[inner(when=datetime.datetime(2024, 1, 1))])

    assert json_dumps({"m": value}) == b'{"m":' + value.model_dump_json().encode() + b"}"


def test_writes_msgspec_structs_as_msgspec_does() -> None:
    msgspec = pytest.importorskip("msgspec")
    variants = [
        msgspec.defstruct("Plain", [("first_name", str), ("age", int, 1)]),
        msgspec.defstruct("Renamed", [("first_name", str), ("age", int, 1)], rename="camel"),
        msgspec.defstruct("Tagged", [("first_name", str), ("age", int, 1)], tag_field="kind", tag="t"),
        msgspec.defstruct("Array", [("first_name", str), ("age", int, 1)], array_like=True, tag=3),
        msgspec.defstruct(
            "Unset", [("first_name", str), ("age", typing.Union[int, msgspec.UnsetType], msgspec.UNSET)]
        ),
    ]

    for variant in variants:
        value = variant(first_name="Ada")
        assert json_dumps(value) == msgspec.json.encode(value)


@pytest.mark.parametrize("around", [10, 10**4, 10**8, 2**15, 2**30, 2**31, 2**60, 2**63, 2**64, 10**30])
def test_writes_integers_around_each_change_of_their_form(around: int) -> None:
    for value in range(around - 3, around + 4):
        assert json_dumps([value, -value, Number(value)]) == f"[{value},{-value},{value}]".encode()


@pytest.mark.parametrize("divisor", [1, 2, 4, 10, 100, 1000])
def test_writes_short_decimals_as_repr_does(divisor: int) -> None:
    for value in [*range(0, 3000, 7), *range(99_999_990, 100_000_010), *range(99_989_990, 99_990_010)]:
        short = value / divisor
        for number in (short, -short, math.nextafter(short, math.inf)):
            assert json_dumps(number) == repr(number).encode()


@pytest.mark.parametrize(
    "mark", ["", '"', "\\", "\n", "\x1f", "\x7f", "é", "\xff", "Ω", "漢", "\ud800", "😀"]
)
def test_writes_texts_of_each_length_with_a_mark_in_each_place(mark: str) -> None:
    for length in (*range(26), 100):
        for place in range(length + 1):
            text = "x" * place + mark + "y" * (length - place)
            expected = json.dumps(text, ensure_ascii=False).replace("\ud800", "\\ud800").encode()

            assert json_dumps(text) == expected
            assert json_dumps([{text: text}] * 2) == b"[{%b:%b},{%b:%b}]" % ((expected,) * 4)


def test_writes_a_text_whose_utf8_the_interpreter_keeps() -> None:
    for text in ("\x80é" * 20, "漢字" * 20, "a😀\n" * 20):
        json_loads(json.dumps(text, ensure_ascii=False))

        assert (
            json_dumps([text, text])
            == json.dumps([text, text], ensure_ascii=False, separators=(",", ":")).encode()
        )


def test_writes_rows_of_the_same_keys() -> None:
    keys = [
        "id",
        "é",
        'with "quotes"',
        "x" * 29,
        "x" * 30,
        "x" * 31,
        "\ud800",
        "",
        *(f"key{n}" for n in range(100)),
    ]
    rows = [dict.fromkeys(keys, n) for n in range(5)]
    other_objects = [{(key + "_")[:-1]: n for key in keys} for n in range(5)]

    for value in (rows, other_objects, {"rows": rows, "id": 1}, [*rows, {1: 2, "id": {"id": [{"id": 1}]}}]):
        assert same(json.loads(json_dumps(value)), json.loads(json.dumps(value)))


def test_a_key_that_is_gone_is_not_taken_for_another_at_its_address() -> None:
    rows: list = []

    def replace() -> str:
        rows[0].clear()
        gc.collect()
        rows[1:] = [{f"new key {n}": n} for n in range(50)]
        return "replaced"

    rows.append({f"old key {n}": n for n in range(50)})
    rows.append(Meddler(replace))
    rows.extend([0] * 60)
    expected = [dict(rows[0]), "done", *({f"new key {n}": n} for n in range(1, 50))]

    assert json.loads(json_dumps(rows)) == expected


def test_writes_dicts_of_each_shape() -> None:
    class Instance:
        pass

    def shapes() -> typing.Iterator[dict]:
        for size in (0, 1, 5, 6, 10, 11, 100, 300, 30_000, 70_000):
            yield {f"k{n}": n for n in range(size)}
            yield {n: n for n in range(size)}
            yield {(f"k{n}" if n % 2 else n): n for n in range(size)}
            holes = {f"k{n}": n for n in range(size)}
            for n in range(0, size, 3):
                del holes[f"k{n}"]
            yield holes
        yield dict.fromkeys(("a", "b", 3))
        yield dict({"a": 1}, b=2)
        instances = [Instance() for _ in range(3)]
        for n, instance in enumerate(instances):
            instance.a = n
            instance.b = "text"
            yield vars(instance)
        del instances[1].a
        yield vars(instances[1])
        instances[2].__dict__[1] = 2
        yield vars(instances[2])

    for shape in shapes():
        assert json_dumps(shape) == json.dumps(shape, separators=(",", ":")).encode()


# --- writing: refusals --------------------------------------------------------------------------------------


class Thing:
    pass


@pytest.mark.parametrize(
    "value", [Thing(), object, User, datetime.timedelta(1), 1j, iter([]), {}.keys(), range(1)], ids=name_of
)
def test_refuses_other_types_by_name_and_place(value: object) -> None:
    name = type(value).__qualname__

    with pytest.raises(TypeError) as caught:
        json_dumps({"users": [{}, {"avatar": value}]})
    assert str(caught.value) == f"object of type {name} is not JSON serializable at $.users[1].avatar"


@pytest.mark.parametrize("value", [b"x", bytearray(b"x"), memoryview(b"x")], ids=name_of)
def test_refuses_bytes_with_advice(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        json_dumps([value])
    name = type(value).__name__
    what = f"object of type {name} is not JSON serializable at $[0]"
    assert str(caught.value) == f"{what}: decode it to str, or spell it as base64 text"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, Real("nan")])
def test_refuses_nan_and_infinity(value: float) -> None:
    with pytest.raises(ValueError, match=r"(NaN|Infinity) is not JSON serializable at \$\.a\[1\]$"):
        json_dumps({"a": [0, value]})
    with pytest.raises(ValueError, match=r"is not JSON serializable at \$\.a$"):
        json_dumps({"a": {value: 0}})


def test_the_place_spells_odd_keys_in_brackets_and_cuts_long_ones() -> None:
    with pytest.raises(TypeError, match=r'at \$\["a b"\]\.1\.é$'):
        json_dumps({"a b": {1: {"é": Thing()}}})
    with pytest.raises(TypeError) as caught:
        json_dumps({"k" * 10000: Thing()})
    assert len(str(caught.value)) < 200


def test_writes_to_the_depth_limit_and_not_past_it() -> None:
    assert json_dumps(nested(MAX_DEPTH)) == b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    with pytest.raises(ValueError, match="nested deeper than 256 levels, or containing itself at "):
        json_dumps(nested(MAX_DEPTH + 1))


class Selfish:
    def model_dump(self, mode: str) -> object:
        return self


@dataclasses.dataclass
class Node:
    next: object = None


def circles() -> typing.Iterator[object]:
    items: list = []
    items.append(items)
    yield items
    members: dict = {}
    members["a"] = (members,)
    yield members
    ordered: dict = collections.OrderedDict()
    ordered["a"] = ordered
    yield ordered
    node = Node()
    node.next = node
    yield node
    yield Selfish()


@pytest.mark.parametrize("value", list(circles()), ids=lambda value: type(value).__name__)
def test_a_circle_ends_at_the_depth_limit(value: object) -> None:
    with pytest.raises(ValueError, match="containing itself"):
        json_dumps(value)


def test_an_exception_of_the_users_code_passes_through() -> None:
    class Broken:
        def model_dump(self, mode: str) -> object:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        json_dumps([Broken()])


# --- mutation, leaks, threads -------------------------------------------------------------------------------


class Meddler:
    """Runs a function while it is written."""

    def __init__(self, act: typing.Callable[[], object]) -> None:
        self.act = act

    def model_dump(self, mode: str) -> str:
        self.act()
        gc.collect()
        return "done"


def test_a_dict_that_changes_its_size_raises_and_ends() -> None:
    for act in (
        lambda target: target.clear(),
        lambda target: target.update({object(): 1}),
        lambda target: target.pop("b"),
    ):
        target: dict = {}
        target["a"] = Meddler(lambda act=act, target=target: act(target))
        target["b"] = ["x" * 100]

        with pytest.raises(RuntimeError, match="dictionary changed size during iteration"):
            json_dumps({"outer": [target]})


def test_a_dict_whose_values_are_replaced_is_written_with_the_new_ones() -> None:
    target: dict = {}
    target["a" * 20] = Meddler(lambda: target.update({"a" * 20: 1, "b": ["new" * 10]}))
    target["b"] = ["old"]

    assert json_dumps(target) == b'{"aaaaaaaaaaaaaaaaaaaa":"done","b":["newnewnewnewnewnewnewnewnewnew"]}'


def test_a_value_that_its_own_key_takes_out_of_the_dict_is_written() -> None:
    target: dict = {}

    class Sly(enum.Enum):
        A = 1

        @property
        def value(self) -> str:
            target[Sly.A] = None
            gc.collect()
            return "a"

    target[Sly.A] = ["old" * 10, object.__repr__(target)]
    expected = json.dumps({"a": target[Sly.A]}, separators=(",", ":")).encode()

    assert json_dumps(target) == expected


def test_a_dict_that_is_refilled_for_ever_ends() -> None:
    target: dict = {}

    def refill() -> None:
        target.pop(next(iter(target)))
        target[object.__repr__(object())] = Meddler(refill)

    target["a"], target["b"] = Meddler(refill), 1
    try:
        json_dumps(target)
    except RuntimeError as error:
        if "changed size" not in str(error):
            raise


def test_a_list_is_written_as_far_as_it_goes() -> None:
    growing: list = []
    growing.extend([Meddler(lambda: growing.append(growing[0])), 1])
    shrinking: list = []
    shrinking.extend([Meddler(shrinking.clear), ["gone"]])

    assert json_dumps(growing) == b'["done",1]'
    assert json_dumps({"a": shrinking}) == b'{"a":["done"]}'


def test_a_set_that_grows_is_written_as_it_was() -> None:
    target: set = set()
    target.add(Meddler(lambda: target.add(object())))

    assert json_dumps(target) == b'["done"]'


def test_a_dataclass_whose_property_mutates_it_is_written() -> None:
    @dataclasses.dataclass
    class Shifty:
        a: int
        b: object = None

        def __getattribute__(self, name: str) -> object:
            if name == "a":
                self.b = ["fresh"]
            return object.__getattribute__(self, name)

    assert json_dumps(Shifty(1)) == b'{"a":1,"b":["fresh"]}'


def test_writing_inside_writing_works() -> None:
    inner = Meddler(lambda: json_dumps({"a": json_loads(b'{"inner": [1, {"b": 2}]}')}))

    assert json_dumps([inner, inner]) == b'["done","done"]'


def test_references_are_given_back() -> None:
    shared = object()
    key, value = "k" * 50, ["v" * 50]
    document = {key: value, "s": {1.5, None}, "p": Point(1, 2.0), "o": collections.OrderedDict(a=value)}
    wrong = {key: [value, shared]}

    def counts() -> list:
        return [
            sys.getrefcount(thing)
            for thing in (shared, key, value, document, document["p"], document["o"], value[0])
        ]

    before = counts()
    for _ in range(100):
        json_dumps(document)
        with pytest.raises(TypeError):
            json_dumps(wrong)

    assert counts() == before


def test_memory_stays_flat() -> None:
    document = [
        {"id": n, "name": f"n{n}", "score": n / 7, "big": 10**30, "t": ["\ud800", "é", User(1, []), ID]}
        for n in range(10)
    ]
    text = json_dumps(document)

    def work() -> None:
        for _ in range(300):
            json_dumps(document)
            json_loads(text)
            for bad in (b'[{"a": [1, "x", {"b": tru', b'["\xff"]', b"[" * 300):
                with pytest.raises(ValueError, match="invalid JSON"):
                    json_loads(bad)

    work()
    gc.collect()
    tracemalloc.start()
    work()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    work()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before < 20_000


def run_in_threads(work: typing.Callable[[], None], count: int) -> None:
    failures: list = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_threads_read_and_write_at_once() -> None:
    document = [{f"key{n}": n, "name": "x"} for n in range(700)]
    text = json.dumps(document)

    def work() -> None:
        for _ in range(20):
            assert json_loads(text) == document
            assert json.loads(json_dumps(document)) == document

    run_in_threads(work, 8)


def test_threads_that_write_what_another_changes_end_well() -> None:
    target: dict = {str(n): [n] for n in range(100)}
    stop = threading.Event()

    def work() -> None:
        for _ in range(300):
            try:
                json.loads(json_dumps(target))
            except RuntimeError as error:
                if "changed size" not in str(error):
                    raise
        stop.set()

    def change() -> None:
        while not stop.is_set():
            target["x"] = [object.__repr__(target)]
            target["0"].append(1)
            target.pop("x")
            target["0"].clear()

    changer = threading.Thread(target=change)
    changer.start()
    run_in_threads(work, 2)
    changer.join()


def test_a_small_stack_holds_the_deepest_document() -> None:
    deep = nested(MAX_DEPTH)
    deep_members: dict = {}
    for _ in range(MAX_DEPTH - 1):
        deep_members = {"a": deep_members}
    before = threading.stack_size(128 * 1024)
    try:
        run_in_threads(lambda: (json_loads(json_dumps(deep)), json_loads(json_dumps(deep_members))), 1)
    finally:
        threading.stack_size(before)

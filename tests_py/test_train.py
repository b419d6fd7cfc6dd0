"""`scripts/train.py`: which profile a build uses, and what it keeps of one."""

from __future__ import annotations

import importlib.util
import lzma
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "train.py"
TEXT = """# IR level Instrumentation Flag
:ir
often
# Func Hash:
784007058953177093
# Num Counters:
2
# Counter Values:
0
7

seldom
# Func Hash:
742261418966908927
# Num Counters:
1
# Counter Values:
6
# Num Value Kinds:
1
9

"""


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("train", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "PROFILES", tmp_path / "profiles")
    monkeypatch.setattr(module, "UNPACKED", tmp_path / "target" / "profiles")
    monkeypatch.delenv("RUSTFLAGS", raising=False)
    return module


def test_a_build_by_another_compiler_has_no_profile(
    train: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train.flags("rustc-1.2.3-llvm-4") == ""
    monkeypatch.setenv("RUSTFLAGS", "-Copt-level=2")
    assert train.flags("rustc-1.2.3-llvm-4") == "-Copt-level=2"


def test_a_build_uses_the_profile_of_its_compiler(
    train: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUSTFLAGS", "-Copt-level=2")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "rustc-1.2.3-llvm-4.profdata.xz").write_bytes(lzma.compress(b"counters"))
    unpacked = tmp_path / "target" / "profiles" / "rustc-1.2.3-llvm-4.profdata"

    flags = train.flags("rustc-1.2.3-llvm-4")

    assert flags.startswith(f"-Copt-level=2 -Cprofile-use={unpacked} ")
    assert unpacked.read_bytes() == b"counters"


def test_an_unpacked_profile_is_left_alone_until_there_is_another(train: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    packed = tmp_path / "profiles" / "rustc-1.2.3-llvm-4.profdata.xz"
    packed.write_bytes(lzma.compress(b"counters"))
    train.flags("rustc-1.2.3-llvm-4")
    unpacked = tmp_path / "target" / "profiles" / "rustc-1.2.3-llvm-4.profdata"
    before = unpacked.stat().st_mtime_ns

    train.flags("rustc-1.2.3-llvm-4")
    assert unpacked.stat().st_mtime_ns == before

    packed.write_bytes(lzma.compress(b"others"))
    train.flags("rustc-1.2.3-llvm-4")
    assert unpacked.read_bytes() == b"others"


def test_functions_are_kept_by_their_largest_counter(train: ModuleType) -> None:
    head, *functions = train.records(TEXT.splitlines(keepends=True))

    assert head == [":ir\n"]
    assert [train.most_runs(function) for function in functions] == [7, 6]
    assert "".join([*head, *(line for function in functions for line in function)]).splitlines() == [
        ":ir",
        "# IR level Instrumentation Flag",
        *TEXT.splitlines()[2:],
    ]

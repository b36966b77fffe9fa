"""YAML is read as JSON is, and both within bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sdclr import recipe
from sdclr.storage.documents import (
    LARGEST_YAML,
    parse_json,
    parse_yaml,
    read_json_file,
    read_yaml_file,
    to_yaml,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
    | st.sampled_from(["1e5", "010", "1:30", "1_0", "0x10", "yes", "null", "~", "2026-01-01", "-1.5e3", "<<", "=", ""]),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text("a1e.", min_size=1), part, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(PLAIN)
def test_what_is_written_is_read_again_by_us_and_by_others(value: Any) -> None:
    text = to_yaml({"value": value})
    assert parse_yaml(text) == {"value": value}
    others = yaml.safe_load(text)
    assert json.dumps(others) == json.dumps({"value": value})


@pytest.mark.parametrize(
    "word",
    ["1:30", "010", "1_0", "0x10", "0o17", "+1", "1.", ".5", "yes", "no", "on", ".inf", ".nan"],
)
def test_words_that_only_yaml_takes_for_numbers_stay_words(word: str) -> None:
    assert parse_yaml(f"a: {word}") == {"a": word}


def test_keys_are_words_and_numbers_are_finite_and_short() -> None:
    assert parse_yaml("1: 2\nnull: 3\ntrue: 4") == {"1": 2, "null": 3, "true": 4}
    for text in ("a: 1e999", "a: -1.0e400"):
        with pytest.raises(ValueError, match="too large"):
            parse_yaml(text)
    for text in ('{"a": 1e999}', '{"a": NaN}', '{"a": -Infinity}'):
        with pytest.raises(ValueError, match=r"too large|not a JSON number"):
            parse_json(text)
    for parse in (parse_json, parse_yaml):
        with pytest.raises(ValueError, match="too many digits"):
            parse("9" * 5_000)


@pytest.mark.parametrize(
    "word", ["0", "-7", "1.5", "1e-6", "1E+3", "-2.5e10", "true", "false", "null"]
)
def test_json_values_are_what_they_are_in_json(word: str) -> None:
    assert parse_yaml(f"a: {word}") == {"a": json.loads(word)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "'a' is given twice, the second time in line 3"),
        ("a: {b: 1, b: 2}", "'b' is given twice"),
        ("a: &x [1]\nb: *x", "line 1 has an anchor"),
        ("a: *x", "alias"),
        ("a: !!int 0x10", "line 1 has a tag"),
        ("a: !!python/object/apply:os.system ['true']", "has a tag"),
        ("a: " + "[" * 40 + "]" * 40, "more than 32 levels"),
        ("a: " + "[" * 100_000, "levels|deep"),
        ("? [a]\n: 1", "not a word"),
        ("a: " + "9" * 5_000, "digits"),
        ("a: [1", "line"),
        ("a: 1\n--- \nb: 2", "single document"),
        ("a: \x01", "special characters"),
        ("a: " + "x" * LARGEST_YAML, "larger than"),
    ],
)
def test_what_is_more_than_settings_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_yaml(text)


def test_a_billion_laughs_and_ten_megabytes_of_keys_are_refused_unread(tmp_path: Path) -> None:
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
    )
    with pytest.raises(ValueError, match="anchor"):
        parse_yaml(laughs)
    (tmp_path / "keys.yaml").write_text("".join(f"k{n}: {n}\n" for n in range(800_000)))
    with pytest.raises(ValueError, match="larger than"):
        read_yaml_file(tmp_path / "keys.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ("[" * 100_000, "deep"),
        ("9" * 5_000, "too many digits"),
        ("{", "Expecting"),
    ],
)
def test_json_that_repeats_a_key_or_nests_too_deep_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_files_that_are_none_are_not_opened(tmp_path: Path) -> None:
    for read in (read_json_file, read_yaml_file):
        with pytest.raises(FileNotFoundError):
            read(tmp_path)


def test_every_recipe_survives_the_way_through_its_file(tmp_path: Path) -> None:
    config = recipe("imagenet100_lt_sdclr").with_values(
        {"data.path": "1e5", "data.splits_dir": "0x10"}
    )
    (tmp_path / "c.yaml").write_text(config.to_yaml())
    assert type(config).from_yaml(tmp_path / "c.yaml") == config

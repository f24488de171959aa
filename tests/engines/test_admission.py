"""What is refused before it is queued."""

import time
from pathlib import Path
from typing import Any

import pytest

from inferstack.config import load
from inferstack.engines.admission import Admission
from inferstack.engines.repository import find, scan
from inferstack.engines.text import load_tokenizer
from inferstack.errors import InvalidInputError

MODELS = Path(__file__).parents[2] / "models"


def admission(model: str, **overrides: Any) -> Admission:
    settings = load(**overrides)
    entry = find(scan(MODELS, settings), model, 1)
    return Admission(entry.deployment(settings), entry)


@pytest.fixture(scope="module")
def minilm() -> Admission:
    return admission("minilm")


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "data"),
        ({"text": 5}, "data.text"),
        ({"text": ""}, "data.text"),
        ({"texts": []}, "data.texts"),
        ({"texts": ["a", None]}, "data.texts.1"),
        ({"texts": ["a"] * 1001}, "data.texts"),
        ({"text": "a", "texts": ["b"]}, "data"),
        ({"text": "a", "x": 1}, "data"),
        ({"text": "word " * 300}, "data.text"),
        ({"texts": ["a", "word " * 300]}, "data.texts.1"),
        ({"text": "a" * 20_000}, "data.text"),
    ],
)
def test_what_the_model_does_not_take_names_the_field(
    minilm: Admission, data: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        minilm.check(data)
    assert caught.value.errors is not None
    assert caught.value.errors[0]["field"] == field


def test_the_limit_is_counted_in_tokens_exactly(minilm: Admission) -> None:
    assert minilm.check({"text": "word " * 254}) == 256
    with pytest.raises(InvalidInputError, match="has 257 tokens; the model takes 256 at most"):
        minilm.check({"text": "word " * 255})


def test_short_texts_cost_about_their_tokens(minilm: Admission) -> None:
    text = "The quick brown fox jumps over the lazy dog."
    tokens = len(load_tokenizer(find(scan(MODELS, load()), "minilm", 1).source).encode(text))
    assert minilm.check({"text": text}) == pytest.approx(tokens, rel=0.3)
    assert minilm.check({"texts": [text, text]}) == pytest.approx(2 * tokens, rel=0.3)


def test_characters_that_split_into_several_tokens_are_counted(minilm: Admission) -> None:
    with pytest.raises(InvalidInputError, match="tokens"):
        minilm.check({"text": "각 " * 120})


@pytest.mark.parametrize(
    "texts",
    [
        ["word " * 254] * 33,
        ["word " * 250] * 1000,
        ["ab " * 12] * 1000,
        ["각 " * 40] * 1000,
    ],
    ids=["full", "far-over", "short", "not-ascii"],
)
def test_the_texts_of_an_input_are_limited_together(minilm: Admission, texts: list[str]) -> None:
    with pytest.raises(InvalidInputError, match=r"in all; the model takes \d+ at most") as caught:
        minilm.check({"texts": texts})
    assert caught.value.errors is not None
    assert caught.value.errors[0]["field"] == "data.texts"


@pytest.mark.parametrize(
    "data",
    [
        {"texts": [1] * 1_000_000},
        {"texts": ["b"] * 1_000_000},
        {"text": [1] * 1_000_000},
        {f"{number}": 1 for number in range(250_000)},
    ],
    ids=["numbers", "texts", "list-for-text", "fields"],
)
def test_a_huge_wrong_input_is_explained_quickly_and_briefly(
    minilm: Admission, data: dict[str, Any]
) -> None:
    started = time.process_time()
    with pytest.raises(InvalidInputError) as caught:
        minilm.check(data)
    assert time.process_time() - started < 1.5, "0.1 to 0.2 s on an idle machine"
    assert not minilm.slow(data)
    assert len(caught.value.detail) < 100


def test_an_explanation_names_the_limit_and_does_not_repeat_the_input(minilm: Admission) -> None:
    with pytest.raises(InvalidInputError, match=r"^data.texts: has more than 1000 items$"):
        minilm.check({"texts": ["b"] * 1001})
    with pytest.raises(InvalidInputError) as caught:
        minilm.check({"texts": ["secret", 5, None]})
    message = 'is not of type "string"'
    assert caught.value.errors == [
        {"field": "data.texts.1", "message": message},
        {"field": "data.texts.2", "message": message},
    ]


def test_a_long_name_of_a_field_is_cut(minilm: Admission) -> None:
    with pytest.raises(InvalidInputError) as caught:
        minilm.check({"text": "a", "x" * 10_000: 1})
    assert caught.value.errors is not None
    assert all(len(entry["message"]) <= 500 for entry in caught.value.errors)


def test_echo_takes_anything_that_is_an_object() -> None:
    assert admission("echo").check({"any": ["thing"]}) == 1.0


def test_production_refuses_inputs_that_crash_on_purpose() -> None:
    with pytest.raises(InvalidInputError, match="not allowed"):
        admission("echo", environment="production").check({"crash": True})
    assert admission("echo").check({"crash": True}) == 1.0


def test_without_the_folder_only_the_schema_is_checked() -> None:
    settings = load()
    deployment = find(scan(MODELS, settings), "minilm", 1).deployment(settings)
    alone = Admission(deployment, None)
    assert alone.check({"text": "word " * 300}) == 1.0
    with pytest.raises(InvalidInputError):
        alone.check({"text": 5})


@pytest.mark.parametrize(
    ("data", "inputs", "slow"),
    [
        ({"text": "short"}, 1000, False),
        ({"text": "word " * 100}, 1, False),
        ({"text": "word " * 100}, 1000, True),
        ({"text": "é" * 4096}, 1, False),
        ({"text": "é" * 4097}, 1, True),
        ({"texts": ["a" * 200] * 30}, 1, False),
        ({"texts": ["a" * 250] * 1000}, 1, True),
        ({"texts": ["word " * 100] * 10}, 1, True),
        ({"texts": 5, "text": None}, 1, False),
        ({"texts": [None] * 5000}, 1, False),
        ({}, 1, False),
    ],
)
def test_only_much_to_tokenize_is_slow(
    minilm: Admission, data: dict[str, Any], inputs: int, slow: bool
) -> None:
    assert minilm.slow(data, inputs) is slow
    assert not admission("echo").slow(data, inputs)


def test_what_cannot_fit_is_refused_without_counting(
    minilm: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(text: str, field: str) -> int:
        raise AssertionError("counted")

    monkeypatch.setattr(minilm._counter, "_count", count)
    with pytest.raises(InvalidInputError, match="4097 characters; the model takes 4096") as caught:
        minilm.check({"texts": ["word " * 100, "a" * 4097]})
    assert caught.value.errors is not None
    assert caught.value.errors[0]["field"] == "data.texts.1"

"""Text models, compared with what transformers computes directly."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from inferstack.batching import CostFit
from inferstack.config import load
from inferstack.engines.base import Engine, Prepared, create
from inferstack.engines.repository import find, scan
from inferstack.errors import InvalidInputError, ModelFolderError, ModelLoadError
from tests.engines.model_card import MODELS, embedding

WORDS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def minilm() -> Engine:
    settings = load()
    return create(find(scan(MODELS, settings), "minilm", 1), settings, "cpu")


def run(engine: Engine, inputs: list[Any]) -> list[Any]:
    prepared = engine.prepare(inputs)
    assert all(isinstance(item, Prepared) for item in prepared)
    return engine.predict([item.value for item in prepared if isinstance(item, Prepared)])


def test_embeddings_are_those_of_the_model_card(minilm: Engine) -> None:
    texts = ["Hello, world!", "x", "A longer sentence about nothing much. " * 12]
    outputs = run(minilm, [{"text": text} for text in texts])
    for text, output in zip(texts, outputs, strict=True):
        assert output["embedding"].shape == (384,)
        assert float(output["embedding"] @ embedding(text)) > 0.9999


def test_many_texts_of_one_task_come_back_in_order(minilm: Engine) -> None:
    rng = random.Random(7)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(80)]
    together, alone = run(minilm, [{"texts": texts}, {"text": texts[3]}])
    singles = [row["embedding"] for row in run(minilm, [{"text": text} for text in texts])]
    assert len(together["embeddings"]) == 80
    for one, other in zip(together["embeddings"], singles, strict=True):
        assert float(one @ other) > 0.9999
    assert float(alone["embedding"] @ singles[3]) > 0.9999


def test_cost_is_the_number_of_tokens(minilm: Engine) -> None:
    one, two = minilm.prepare([{"text": "hello"}, {"texts": ["hello", "hello world"]}])
    assert isinstance(one, Prepared)
    assert isinstance(two, Prepared)
    assert (one.cost, two.cost) == (3.0, 7.0)


def test_a_text_over_the_limit_is_refused_and_never_cut(minilm: Engine) -> None:
    fits, over, shape = minilm.prepare(
        [{"text": "word " * 254}, {"texts": ["a", "word " * 255]}, {"wrong": 1}]
    )
    assert isinstance(fits, Prepared)
    assert fits.cost == 256
    assert isinstance(over, InvalidInputError)
    assert over.errors == [
        {"field": "data.texts.1", "message": "has 257 tokens; the model takes 256 at most"}
    ]
    assert isinstance(shape, InvalidInputError)


def test_an_input_of_too_many_tokens_in_all_is_refused(minilm: Engine) -> None:
    fits, over = minilm.prepare([{"texts": ["word " * 254] * n} for n in (32, 33)])
    assert isinstance(fits, Prepared)
    assert fits.cost == 8192
    assert isinstance(over, InvalidInputError)
    message = "has 8448 tokens in all; the model takes 8192 at most"
    assert over.errors == [{"field": "data.texts", "message": message}]


def test_the_warm_up_measures_batches(minilm: Engine) -> None:
    fit = CostFit()
    minilm.warm_up(fit)
    model = fit.model()
    assert model is not None
    assert 0 < model.seconds(8, 16) < 10


def classifier(root: Path, **changes: Any) -> Path:
    """A tiny sequence classification model with random weights.

    Args:
        root: a folder of models.
        changes: what its config has besides.
    """
    from transformers import BertConfig, BertForSequenceClassification

    folder = root / "colours" / "1"
    config = BertConfig(
        vocab_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        **{
            "id2label": {0: "dark", 1: "light", 2: "neither"},
            "label2id": {"dark": 0, "light": 1, "neither": 2},
            **changes,
        },
    )
    torch.manual_seed(1)
    BertForSequenceClassification(config).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    text = "engine: transformers\ntask: text-classification\n"
    (folder / "config.yaml").write_text(text)
    return folder


def colours(root: Path) -> Engine:
    return create(find(scan(root, load()), "colours", 1), load(), "cpu")


def test_classification_gives_labels_and_probabilities(tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    folder = classifier(tmp_path)
    engine = colours(tmp_path)
    one, many = run(engine, [{"text": "red red"}, {"texts": ["blue", "green red blue"]}])
    model: Any = BertForSequenceClassification.from_pretrained(folder)
    model.eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[2, 4, 4, 3]])).logits[0]
    expected = torch.softmax(logits, -1).tolist()
    assert list(one["scores"].values()) == pytest.approx(expected, abs=1e-5)
    assert one["label"] == ["dark", "light", "neither"][int(np.argmax(expected))]
    assert one["score"] == pytest.approx(max(expected), abs=1e-5)
    assert [set(row["scores"]) for row in many["results"]] == [{"dark", "light", "neither"}] * 2


@pytest.mark.parametrize(
    ("changes", "scores"),
    [
        ({"problem_type": "multi_label_classification"}, torch.sigmoid),
        ({"problem_type": "regression"}, lambda logits: logits),
        ({"problem_type": "single_label_classification"}, lambda logits: logits.softmax(-1)),
        ({"id2label": {0: "fits"}, "label2id": {"fits": 0}}, torch.sigmoid),
    ],
)
def test_labels_that_do_not_exclude_each_other_have_scores_of_their_own(
    tmp_path: Path, changes: dict[str, Any], scores: Any
) -> None:
    from transformers import BertForSequenceClassification

    folder = classifier(tmp_path, **changes)
    (one,) = run(colours(tmp_path), [{"text": "red red"}])
    model: Any = BertForSequenceClassification.from_pretrained(folder)
    model.eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[2, 4, 4, 3]])).logits[0]
    expected = scores(logits).tolist()
    assert list(one["scores"].values()) == pytest.approx(expected, abs=1e-5)
    assert one["score"] == pytest.approx(max(expected), abs=1e-5)


def test_the_limit_comes_from_the_model_when_the_config_has_none(tmp_path: Path) -> None:
    classifier(tmp_path)
    entry = find(scan(tmp_path, load()), "colours", 1)
    assert (entry.max_cost, entry.max_tokens) == (32, 8192)


def test_weights_that_are_not_safetensors_are_refused(tmp_path: Path) -> None:
    folder = classifier(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"there is no \.safetensors file"):
        colours(tmp_path)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    (classifier(tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json"):
        colours(tmp_path)


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        return
    classifier(tmp_path)
    with pytest.raises(ModelLoadError, match="sees no usable GPU"):
        create(find(scan(tmp_path, load()), "colours", 1), load(), "cuda")

"""Model folders: what is taken, what is refused, and in which words."""

import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inferstack.config import Settings, load
from inferstack.deployment import DeploymentState
from inferstack.engines.model_config import BatchConfig
from inferstack.engines.repository import ModelEntry, find, scan
from inferstack.errors import ModelFolderError

MODELS = Path(__file__).parents[2] / "models"


def folder(root: Path, config: str | None, model: str = "m", version: str = "1") -> Path:
    path = root / model / version
    path.mkdir(parents=True)
    if config is not None:
        (path / "config.yaml").write_text(config)
    return path


def only(root: Path, **overrides: Any) -> ModelEntry:
    (entry,) = scan(root, load(**overrides))
    return entry


def test_the_demo_repository_is_valid() -> None:
    entries = {entry.name: entry for entry in scan(MODELS, load())}
    assert {name: entry.error for name, entry in entries.items()} == {
        "echo:1": None,
        "minilm:1": None,
    }
    minilm = entries["minilm:1"].deployment(load())
    assert (minilm.engine, minilm.task) == ("transformers", "sentence-embedding")
    assert minilm.max_cost == 256
    assert minilm.input_schema is not None
    assert entries["echo:1"].deployment(load()).test_only


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "config.yaml is missing"),
        ("engine: [", "config.yaml line 1: a bracket that is not closed"),
        ("engine: python\nlimits: {max_cost: 1\n", "line 2: a mapping that is not closed by }"),
        ("engine: python\n\tthreads: 1\n", "config.yaml line 2: a tab: YAML is indented by spaces"),
        ("engine: python\n  threads: 1\n", "config.yaml line 2: a ':' too many"),
        ("engine: !!python/object:os.x 1", "line 1: a tag with '!': only plain values"),
        ("- a\n", "config.yaml line 1: it takes fields, such as engine: python"),
        ("\x00", "config.yaml: a character that YAML does not take"),
        ("[" * 3000, "config.yaml: it is nested too deep"),
        ("task: x\n", "line 1: engine: is missing; takes python, torch, transformers"),
        ("engine: magic\n", "line 1: engine: 'magic': takes 'python', 'transformers' or 'torch'"),
        ("engine: python\nspeed: 9\n", "line 2: speed: is no such field; there are engine, task"),
        ('engine: python\n"\\ud800\\n": 9\n', "takes text"),
        ("engine: python\ntimeout: 2020-13-45\n", "is none: month must be in 1..12"),
        (
            "engine: python\nbatch:\n  max_sise: 9\n",
            "config.yaml line 3: batch.max_sise: is no such field; did you mean max_size?",
        ),
        (
            "engine: python\nbatch:\n  max_size: 0\n",
            "config.yaml line 3: batch.max_size: 0: takes 1 or more",
        ),
        (
            "engine: python\nreplicas: {min: 3, max: 2}\n",
            "line 2: replicas: min is larger than max",
        ),
        ("engine: python\nreplicas: {min: x, max: 2}\n", "replicas.min: 'x': takes a whole number"),
        (
            "engine: python\nreplicas: many\n",
            "replicas: 'many': takes 'auto', a whole number, or {",
        ),
        ("engine: python\nnum_gpus: 1.5\n", "num_gpus: 1.5: takes a part of one GPU, or a whole"),
        ("engine: python\ndevice: gpu\n", "device: 'gpu': takes auto, cpu, cuda or cuda:<number>"),
        ("engine: transformers\ntask: poetry\n", "line 2: task: engine transformers takes"),
        ("engine: torch\n", "config.yaml line 1: engine: torch needs inputs and outputs"),
        (
            "engine: torch\ninputs:\n- name: x\n  dtype: f16\noutputs: [{}]\n",
            "line 5: outputs.0.name: is missing",
        ),
        ("engine: python\ninput_schema: {type: 5}\n", "config.yaml line 2: input_schema: "),
        (
            "engine: python\nsource: package:no_such_package/x\n",
            "'no_such_package' is not installed",
        ),
        ("engine: python\nsource: package:yaml/../json\n", "is not a folder"),
        ("engine: python\nsource: package:__main__/x\n", "__main__"),
        (
            "engine: transformers\ntask: sentence-embedding\nlimits: {max_cost: .inf}\n",
            "line 3: limits.max_cost: inf: takes a finite number",
        ),
        ("engine: python\nsource: /etc\n", "line 2: source: '/etc': takes package:<name>/<folder>"),
        ("engine: transformers\ntask: sentence-embedding\n", "limits.max_cost is missing"),
        ("engine: python\nlimits: {max_tokens: 9}\n", "only the engine transformers counts tokens"),
        (
            "engine: python\nlimits: {max_cost: 9}\n",
            "limits.max_cost: only the engine transformers",
        ),
        (
            "engine: transformers\ntask: sentence-embedding\n"
            "limits: {max_cost: 10, max_tokens: 9}\n",
            "limits: max_tokens 9 is less than max_cost 10",
        ),
    ],
)
def test_a_broken_folder_says_in_one_line_what_is_wrong(
    tmp_path: Path, config: str | None, message: str
) -> None:
    folder(tmp_path, config)
    entry = only(tmp_path)
    assert entry.error is not None
    assert message in entry.error
    assert "\n" not in entry.error
    deployment = entry.deployment(load())
    assert deployment.state is DeploymentState.FAILED
    assert deployment.reason == entry.error
    with pytest.raises(ModelFolderError):
        _ = entry.ready_config


def test_one_broken_folder_leaves_the_others_alone(tmp_path: Path) -> None:
    folder(tmp_path, "engine: [")
    folder(tmp_path, "engine: python\n", model="n")
    assert [entry.error is None for entry in scan(tmp_path, load())] == [False, True]


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        ('{"max_position_embeddings": 1' + "0" * 400 + "}", None),
        ("[" * 100_000, None),
        ("[]", None),
        ('{"max_position_embeddings": 514}', 514),
        ('{"max_position_embeddings": 514, "model_type": "bert", "pad_token_id": 1}', 514),
        ('{"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": 1}', 512),
        ('{"max_position_embeddings": 514, "model_type": "mpnet"}', 512),
    ],
)
def test_the_longest_text_is_what_the_files_of_a_model_say(
    tmp_path: Path, content: str, limit: float | None
) -> None:
    path = folder(tmp_path, "engine: transformers\ntask: sentence-embedding\n")
    (path / "config.json").write_text(content)
    entry = only(tmp_path)
    if limit is None:
        assert entry.error is not None
    else:
        assert entry.max_cost == limit


def test_names_that_are_no_models_or_versions_are_ignored(tmp_path: Path) -> None:
    for model, version in ((".git", "1"), ("m", "01"), ("m", "latest"), ("m", "0"), ("m", "2")):
        folder(tmp_path, "engine: python\n", model, version)
    (tmp_path / "README.md").write_text("")
    assert [entry.name for entry in scan(tmp_path, load())] == ["m:2"]


def test_model_list_restricts_what_is_served(tmp_path: Path) -> None:
    for model in ("a", "b"):
        folder(tmp_path, "engine: python\n", model)
    names = [entry.name for entry in scan(tmp_path, load(model_list="b"))]
    assert names == ["b:1"]


def test_a_missing_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"MODEL_PATH=.*nowhere"):
        scan(tmp_path / "nowhere", load())


def test_an_unknown_version_is_named(tmp_path: Path) -> None:
    folder(tmp_path, "engine: python\n")
    with pytest.raises(ModelFolderError, match="there is no folder for m:7"):
        find(scan(tmp_path, load()), "m", 7)


def test_settings_are_defaults_and_upper_limits(tmp_path: Path) -> None:
    folder(tmp_path, "engine: python\nbatch: {max_wait_ms: 50}\n")
    settings: Settings = load(batch_size=7, max_batch_wait_ms=10)
    entry = only(tmp_path)
    assert entry.batch_size(settings) == 7
    assert entry.batch_wait(settings) == pytest.approx(0.010)
    assert entry.lookahead(load()) == 1


@pytest.mark.parametrize(
    ("config", "batch_size", "message"),
    [
        ("batch: {max_size: 500, lookahead: 3}", 32, "batch: 500 .* 3 (lookahead) = 1500 tasks"),
        ("batch: {lookahead: 64}", 32, "batch: 32 .* 64 (lookahead) = 2048 tasks"),
        ("timeout: 1", 1001, "batch: 1001 .* at most 1000"),
        (
            "batch: {max_size: 1001}",
            32,
            "config.yaml line 2: batch.max_size: 1001: takes 1000 or less",
        ),
    ],
)
def test_a_claim_is_at_most_a_thousand_tasks(
    tmp_path: Path, config: str, batch_size: int, message: str
) -> None:
    folder(tmp_path, f"engine: python\n{config}\n")
    error = only(tmp_path, batch_size=batch_size).error
    assert error is not None
    assert re.search(message.replace("(", r"\(").replace(")", r"\)"), error)
    assert "\n" not in error


def test_a_large_batch_is_not_multiplied_by_default() -> None:
    settings = load(batch_size=600)
    minilm = find(scan(MODELS, settings), "minilm", 1)
    assert minilm.lookahead(settings) == 2
    assert minilm.error is None
    assert minilm.config is not None
    bare = minilm.config.model_copy(update={"batch": BatchConfig()})
    assert dataclasses.replace(minilm, config=bare).lookahead(settings) == 1


def test_production_forbids_test_only_fields_in_the_schema() -> None:
    entry = find(scan(MODELS, load()), "echo", 1)
    schema = entry.deployment(load(environment="production")).input_schema
    assert schema is not None
    assert schema["properties"]["crash"] is False
    schema = entry.deployment(load()).input_schema
    assert schema is not None
    assert schema["properties"]["crash"] == {"type": "boolean"}


@contextmanager
def without_root() -> Iterator[None]:
    """Root may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_may_not_be_read_does_not_keep_the_others_from_serving(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        root.chmod(0o755)
        folder(root, "engine: python\n", "good")
        secret = folder(root, "engine: python\n", "secret").parent
        text = folder(root, "engine: transformers\ntask: sentence-embedding\n", "text")
        (text / "config.json").write_text("{}")
        secret.chmod(0)
        (text / "config.json").chmod(0)
        with without_root():
            entries = {entry.name: entry.error for entry in scan(root, load())}
        secret.chmod(0o755)
    assert entries.pop("good:1") is None
    assert "Permission denied" in (entries.pop("text:1") or "")
    assert entries == {}
    (record,) = caplog.records
    told = f"the model secret is left out: {secret}: Permission denied"
    assert (record.levelname, record.message) == ("ERROR", told)

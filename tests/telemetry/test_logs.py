"""Log lines."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import inferstack
from inferstack import config
from inferstack.telemetry.logs import JsonFormatter, TextFormatter, setup, tell

NO_PROGRAMS = {"api/document.py", "telemetry/pulse.py"}
"""Modules that print an answer and end: they have nothing to log."""


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root of all loggers, as it was afterwards."""
    found = logging.getLogger()
    before, level = found.handlers[:], found.level
    yield found
    found.handlers[:] = before
    found.setLevel(level)
    logging.captureWarnings(False)


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    found = logging.LogRecord("inferstack.x", logging.WARNING, "f.py", 1, message, args, None)
    vars(found).update(extra)
    return found


def test_a_line_is_one_json_object_with_its_extras() -> None:
    line = JsonFormatter("api").format(record("%s\nfailed", "it", task_id="t-1"))
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "it\nfailed"
    assert (found["service"], found["level"], found["task_id"]) == ("api", "warning", "t-1")
    assert found["time"].endswith("Z")


def test_an_exception_is_in_the_line() -> None:
    try:
        raise ValueError("boom")
    except ValueError as error:
        made = record("failed")
        made.exc_info = (ValueError, error, error.__traceback__)
    assert "ValueError: boom" in json.loads(JsonFormatter("api").format(made))["exception"]


@pytest.mark.parametrize("value", [object(), {1: {2}}, {(1, 2): 3}, "\ud800", ["\ud800"]])
def test_an_extra_that_is_no_json_does_not_lose_the_line(value: object) -> None:
    found = json.loads(JsonFormatter("api").format(record("kept", odd=value)))
    assert found["message"] == "kept"


def test_half_of_a_surrogate_pair_does_not_lose_the_line() -> None:
    found = json.loads(JsonFormatter("api").format(record("a \ud800 in the message")))
    assert found["message"] == "a \\ud800 in the message"


def test_a_text_line_is_readable() -> None:
    assert "WARNING api inferstack.x: hello" in TextFormatter("api").format(record("hello"))


def messages(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]


def test_setup_leaves_one_handler(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    setup("api")
    setup("api", level="WARNING")
    assert len(root.handlers) == 1
    logging.getLogger("inferstack.y").info("unseen")
    logging.getLogger("inferstack.y").error("seen")
    assert messages(capsys) == ["seen"]


@pytest.mark.usefixtures("root")
def test_a_program_tells_of_a_name_that_is_nearly_a_setting_and_those_it_starts_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BATCHSIZE", "8")
    setup("recorder")
    assert messages(capsys) == ["BATCHSIZE is no setting and changes nothing: BATCH_SIZE is one"]
    for name, value in config.as_environment(config.load()).items():
        monkeypatch.setenv(name, value)
    setup("replica")
    assert messages(capsys) == []


def test_every_program_sets_up_its_logs() -> None:
    package = Path(inferstack.__file__).parent
    sources = {str(path.relative_to(package)): path.read_text() for path in package.rglob("*.py")}
    programs = {name for name, text in sources.items() if '__name__ == "__main__"' in text}
    assert programs > NO_PROGRAMS
    setting_up = {
        name for name in programs if re.search(r"\b(set_up_logs|logs\.setup)\(", sources[name])
    }
    assert programs - setting_up == NO_PROGRAMS


def test_a_text_line_names_the_task_too() -> None:
    assert TextFormatter("api").format(record("hello", task_id="t-1")).endswith("hello task_id=t-1")


def test_tasks_are_named_one_by_one_and_only_where_somebody_reads_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("inferstack.told")
    caplog.set_level(logging.INFO, "inferstack.told")

    unread = iter(["a"])
    tell(log, logging.DEBUG, "unseen", unread)
    assert list(unread) == ["a"]
    tell(log, logging.INFO, "seen", ["a", "b"], worker="w")
    assert [(r.message, vars(r)["task_id"], vars(r)["worker"]) for r in caplog.records] == [
        ("seen", "a", "w"),
        ("seen", "b", "w"),
    ]

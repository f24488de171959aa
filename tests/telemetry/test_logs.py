"""Log lines."""

import json
import logging

import pytest

from inferstack.telemetry.logs import JsonFormatter, TextFormatter, setup, tell


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


def test_setup_leaves_one_handler(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        setup("api")
        setup("api", level="WARNING")
        assert len(root.handlers) == 1
        logging.getLogger("inferstack.y").info("unseen")
        logging.getLogger("inferstack.y").error("seen")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.captureWarnings(False)
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == [
        "seen"
    ]


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

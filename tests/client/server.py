"""A small HTTP server that answers as the API's contract says, and fails on command."""

import json
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Answer = tuple[int, dict[str, str], Any]


@dataclass
class Seen:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    at: float


@dataclass
class Contract:
    """The tasks of the server, and what it shall do wrong with the next requests."""

    seen: list[Seen] = field(default_factory=list)
    script: deque[Answer | str] = field(default_factory=deque)
    """An answer to give instead; `drop`: handle the request, then hang up without an answer;
    `truncate`: hang up in mid-answer; `hang`: answer after a second. Empty: behave."""
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    compute: float = 0.0
    """Seconds that a task takes."""
    outcome: dict[str, Any] = field(default_factory=lambda: {"status": "completed"})
    ignores_prefer: bool = False

    def handle(self, request: Seen) -> Answer:
        """The answer of a server without faults."""
        path = request.path.split("?")[0]
        if path == "/api/inference/batch":
            return 200, {}, [self._submit_item(item) for item in request.body]
        if path == "/api/inference" and request.method == "POST":
            return self._submit(request)
        if path == "/api/inference":
            return 200, {}, {"tasks": [self.view(i) for i in self.tasks], "next_cursor": "more"}
        if path.startswith("/api/inference/"):
            return self._one(request, path.rsplit("/", 1)[-1])
        if path == "/api/auth/login":
            return self._login(request.body)
        if path == "/api/models":
            return 200, {}, {"models": [{"model": "echo", "version": 1, "state": "ready"}]}
        return problem(404, "not-found", "nothing here")

    def view(self, task_id: str) -> dict[str, Any]:
        """A task as the API shows it."""
        task = self.tasks[task_id]
        done = time.monotonic() >= task["due"]
        outcome = self.outcome if done else {"status": "running"}
        result = task["data"] if outcome["status"] == "completed" else None
        shown = {"task_id": task_id, "model": "echo", "model_version": 1, "priority": "normal"}
        times = {"created_at": "2026-01-02T03:04:05.678Z", "timings": {"compute_ms": 1.5}}
        return {**shown, **times, "result": result, "unknown_field": 1, **outcome}

    def _submit(self, request: Seen) -> Answer:
        key = request.headers.get("idempotency-key") or uuid.uuid4().hex
        task_id = self.keys.get(key)
        if task_id is None:
            task_id = self.keys[key] = self._submit_item(request.body)["task_id"]
        view = self._settle(task_id, request)
        if "prefer" in request.headers and view["status"] != "running":
            return 200, {}, view
        return 202, {}, {"task_id": task_id, "status": "queued", "queue_position": 0}

    def _submit_item(self, body: dict[str, Any]) -> dict[str, Any]:
        if "data" not in body or body["data"].get("bad"):
            errors = [{"field": "d", "message": "m"}]
            refused: dict[str, Any] = problem(422, "invalid-input", "no", errors=errors)[2]
            return refused
        task_id = str(uuid.uuid4())
        self.tasks[task_id] = {"data": body["data"], "due": time.monotonic() + self.compute}
        return {"task_id": task_id, "status": "queued", "queue_position": 0}

    def _one(self, request: Seen, task_id: str) -> Answer:
        if task_id not in self.tasks:
            return problem(404, "task-not-found", "there is no such task", task_id=task_id)
        if request.method == "DELETE":
            self.outcome = {"status": "cancelled"}
            self.tasks[task_id]["due"] = 0.0
        return 200, {}, self._settle(task_id, request)

    def _settle(self, task_id: str, request: Seen) -> dict[str, Any]:
        hold = float(request.headers.get("prefer", "wait=0").split("=")[1])
        left = self.tasks[task_id]["due"] - time.monotonic()
        if not self.ignores_prefer:
            time.sleep(max(0.0, min(hold, left)))
        return self.view(task_id)

    def _login(self, body: dict[str, str]) -> Answer:
        if body["password"] != "right":
            return problem(401, "unauthenticated", "wrong username or password")
        return 200, {}, {"access_token": "t0ken", "token_type": "bearer", "expires_in": 3600}


def problem(status: int, slug: str, detail: str, **rest: Any) -> Answer:
    """An answer with problem details."""
    body = {"type": f"https://inferstack.dev/problems/{slug}", "title": slug, "status": status}
    headers = {"content-type": "application/problem+json"}
    return status, headers, body | {"detail": detail} | rest


class Server:
    """Serves a contract on a free port of the loopback interface."""

    def __init__(self) -> None:
        """Binds; `with` serves."""
        self.contract = Contract()
        contract = self.contract

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                _answer(self, contract)

            do_GET = do_POST = do_DELETE = do

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Starts."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _answer(handler: BaseHTTPRequestHandler, contract: Contract) -> None:
    body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
    headers = {name.lower(): value for name, value in handler.headers.items()}
    parsed = json.loads(body) if body else None
    request = Seen(handler.command, handler.path, headers, parsed, time.monotonic())
    contract.seen.append(request)
    fault = contract.script.popleft() if contract.script else None
    if isinstance(fault, tuple):
        _write(handler, fault)
        return
    if fault == "hang":
        time.sleep(1.0)
    answer = contract.handle(request)
    if fault != "drop":
        _write(handler, answer, cut=fault == "truncate")
    if fault:
        handler.close_connection = True


def _write(handler: BaseHTTPRequestHandler, answer: Answer, *, cut: bool = False) -> None:
    status, headers, content = answer
    # Without spaces, as the API writes it.
    body = (
        content
        if isinstance(content, bytes)
        else json.dumps(content, separators=(",", ":")).encode()
    )
    handler.send_response(status)
    for name, value in {"content-type": "application/json", **headers}.items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[:3] if cut else body)

"""The web UI in a real browser over a real stack."""

import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from inferstack.client import Client, Receipt, Submission
from tests.e2e.browser import BUILT, DESKTOP, PHONE, STRANGER, Visitor, launched, missing
from tests.gateway.gateway import Gateway
from tests.local.stack import RealStack

pytestmark = pytest.mark.timeout(240)

SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""A folder for pictures of every page, for somebody to look at."""

LOOKS = [("light", DESKTOP), ("dark", PHONE)]
"""Colours depend on the theme and places on the size: two of four show what there is to see."""
if SCREENSHOTS:
    LOOKS += [("dark", DESKTOP), ("light", PHONE)]

Visit = Callable[..., Visitor]
MISSING = missing()
expect.set_options(timeout=20_000)

PAGES = ["overview", "playground", "tasks", "models", "dead-letters"]
LOST = ["tasks/unknown", "no/such-page"]
"""Where there is nothing."""


@pytest.fixture(scope="module")
def stack() -> Iterator[RealStack]:
    if MISSING:
        assert not os.environ.get("CI"), MISSING
        pytest.skip(MISSING)
    folder = Path(tempfile.mkdtemp(prefix="inferstack-ui-"))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAX_ATTEMPTS", "1")  # What fails shall be a dead letter at once.
        found = RealStack(folder / "home")
        found.up()
        yield found
        found.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def client(stack: RealStack) -> Iterator[Client]:
    with stack.client() as found:
        found.infer({"text": "so that the history has something in it"})
        yield found


@pytest.fixture(scope="module")
def browser(stack: RealStack) -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture
def visit(browser: Browser, stack: RealStack) -> Iterator[Visit]:
    """Opens pages; in the end none may have failed unseen."""
    visitors: list[Visitor] = []

    def new(url: str = f"http://127.0.0.1:{stack.port}", **context: Any) -> Visitor:
        visitors.append(Visitor(browser, url, **context))
        return visitors[-1]

    yield new
    for visitor in visitors:
        visitor.close()
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []


def send(page: Page, text: str) -> None:
    page.get_by_label("Input (the request's data, as JSON)").fill(text)
    page.get_by_role("button", name="Send", exact=True).click()


def sign_in(page: Page, password: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to inferstack")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def panel(page: Page, title: str) -> Any:
    return page.get_by_role("region", name=title, exact=True)


def picture(page: Page, name: str) -> None:
    """For somebody to look at, if anybody wants to."""
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=True)


def test_a_request_is_sent_and_found_again_everywhere(client: Client, visit: Visit) -> None:
    page = visit().open("/")
    expect(page).to_have_url(re.compile("/overview$"))
    expect(page.get_by_text(re.compile("^live"))).to_be_visible()
    expect(panel(page, "Components").get_by_text("ok", exact=True)).to_have_count(3)

    page.get_by_role("link", name="Playground").click()
    send(page, '{"text": "from the browser"}')
    result = panel(page, "Result")
    expect(result.get_by_text("completed").first).to_be_visible()
    expect(result).to_contain_text('"text": "from the browser"')
    expect(result).to_contain_text("compute")
    expect(panel(page, "The same request")).to_contain_text(
        f"curl -s {page.url.removesuffix('/playground')}/api/inference"
    )
    task_id = str(result.get_by_role("link").first.get_attribute("href")).split("/")[-1]
    assert client.get(task_id).result == {"text": "from the browser"}

    page.get_by_role("link", name="Tasks", exact=True).click()
    page.get_by_label("State").select_option("completed")
    page.get_by_role("link", name=task_id[-12:]).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Task {task_id}")
    expect(panel(page, "Input")).to_contain_text("from the browser")
    page.get_by_role("button", name="Retry as a new task").click()
    expect(page).not_to_have_url(re.compile(task_id))
    expect(panel(page, "Result")).to_contain_text("from the browser")
    page.get_by_role("link", name="Open in Playground").click()
    expect(page.get_by_label("Input (the request's data, as JSON)")).to_have_value(
        re.compile("from the browser")
    )


def test_the_place_in_the_queue_moves_under_load(client: Client, visit: Visit) -> None:
    page = visit().open("/playground")
    expect(page.get_by_label("Model")).to_have_value("echo")
    load = [{"data": {"sleep_ms": 200}} for _ in range(800)]
    for _ in range(2):
        assert page.request.post("/api/inference/batch", data=load).ok
    send(page, '{"text": "behind all of them"}')
    position = page.get_by_test_id("position")
    seen: list[int] = []
    until = time.monotonic() + 60
    while not panel(page, "Result").get_by_text("completed").count():
        assert time.monotonic() < until, seen
        # It goes when the task runs: a look that waits for it would wait in vain.
        seen += [int(text.replace(",", "")) for text in position.all_text_contents()]
        time.sleep(0.05)
    assert seen[0] > 200
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) > 2, "it was seen to move"


def test_the_overview_shows_what_goes_on(client: Client, visit: Visit) -> None:
    page = visit().open("/overview")
    load = [{"data": {"sleep_ms": 1000}, "priority": "low"} for _ in range(700)]
    assert page.request.post("/api/inference/batch", data=load).ok
    row = page.get_by_role("row", name=re.compile("^echo:1 ready closed"))
    low = row.get_by_role("cell").nth(5)
    expect(low).to_have_text(re.compile("^[1-9]"))
    chart = page.get_by_role("img", name=re.compile("^Waiting tasks: high 0, normal 0, low [1-9]"))
    expect(chart).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("completed [1-9]"))).to_be_visible()
    expect(low).to_have_text("0", timeout=60_000)


def test_a_waiting_task_is_cancelled(client: Client, visit: Visit) -> None:
    page = visit().open("/playground")
    blocker = client.submit({"sleep_ms": 5000})
    while client.get(blocker.task_id).status == "queued":
        time.sleep(0.02)
    later = client.submit({"text": "neither"})
    send(page, '{"text": "not needed after all"}')
    result = panel(page, "Result")
    result.get_by_role("button", name="Cancel").click()
    expect(result.get_by_text("cancelled").first).to_be_visible()

    page.goto("/tasks")
    page.get_by_role("button", name=f"Cancel task {later.task_id[-12:]}").click()
    page.goto(f"/tasks/{later.task_id}")
    expect(page.get_by_text("It was cancelled: there is none.")).to_be_visible()


def test_what_failed_is_a_dead_letter_and_is_redriven(client: Client, visit: Visit) -> None:
    page = visit().open("/playground")
    given = page.get_by_label("Input (the request's data, as JSON)")
    given.fill('{"fail": "boom"}')
    given.press("Control+Enter")
    expect(panel(page, "Result")).to_contain_text("engine-error")
    page.get_by_role("link", name="Dead letters").click()
    page.get_by_role("row", name=re.compile("boom")).first.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("^Dead letter "))
    expect(panel(page, "Input")).to_contain_text('"fail": "boom"')
    old = page.url.split("/")[-1]
    panel(page, "Redrive").get_by_text("high", exact=True).click()
    panel(page, "Redrive").get_by_role("button", name="Redrive").click()
    expect(page).to_have_url(re.compile("/tasks/"))
    expect(panel(page, "Details")).to_contain_text(old)
    expect(panel(page, "Details")).to_contain_text("high")
    page.go_back()
    expect(page.get_by_role("alert")).to_contain_text("redriven")
    expect(page.get_by_role("button", name="Redrive")).to_have_count(0)

    page.get_by_role("link", name="Dead letters").first.click()
    expect(page.get_by_role("row", name=re.compile("boom"))).to_have_count(1)
    expect(page.get_by_role("link", name=old[-12:])).to_have_count(0)
    page.get_by_role("checkbox", name="Select all on this page").check()
    page.get_by_role("button", name="Redrive selected").click()
    expect(page.get_by_text("1 redriven")).to_be_visible()
    row = page.get_by_role("row", name=re.compile("boom"))
    expect(row).to_have_count(1)
    row.get_by_role("checkbox").check()
    page.get_by_role("button", name="Purge selected…").click()
    page.get_by_role("button", name="Purge", exact=True).click()
    expect(page.get_by_text("No dead letters", exact=True)).to_be_visible()


def test_a_retry_asks_for_exactly_the_same(client: Client, visit: Visit) -> None:
    data = {"id": 2**53 + 1, "text": "a number that JavaScript has not"}
    old = client.infer(data, model="echo").task_id
    page = visit().open(f"/tasks/{old}")
    page.get_by_role("button", name="Retry as a new task").click()
    expect(page).not_to_have_url(re.compile(old))
    assert client.wait(page.url.split("/")[-1]).result == data


def test_what_is_sent_again_after_its_answer_was_lost_is_one_task(
    client: Client, visit: Visit
) -> None:
    page = visit().open("/playground")
    accepted: list[str] = []

    def lose(route: Route) -> None:
        accepted.append(route.fetch().json()["task_id"])
        route.abort()

    page.route("**/api/inference", lose, times=1)
    send(page, '{"text": "sent twice"}')
    expect(page.get_by_role("alert")).to_contain_text("Repeat it: nothing is done twice.")
    picture(page, "playground-lost")
    page.get_by_role("button", name="Send", exact=True).click()
    result = panel(page, "Result")
    expect(result).to_contain_text('"text": "sent twice"')
    link = result.get_by_role("link").first
    expect(link).to_have_attribute("href", f"/tasks/{accepted[0]}")
    # What is sent on purpose once more is another task.
    page.get_by_role("button", name="Send", exact=True).click()
    expect(link).not_to_have_attribute("href", f"/tasks/{accepted[0]}")


def test_no_number_changes_on_its_way_through_the_browser(client: Client, visit: Visit) -> None:
    number = 2**53 + 1
    page = visit().open("/playground")
    send(page, f'{{"id": {number}, "some": [-{number}, 0.5]}}')
    result = panel(page, "Result")
    expect(result).to_contain_text(f'"id": {number}')
    expect(result).to_contain_text(f"[-{number}, 0.5]")
    expect(panel(page, "The same request")).to_contain_text(f'"id":{number},"some":[-{number},0.5]')
    result.get_by_role("link").first.click()
    expect(panel(page, "Input")).to_contain_text(f'"id": {number}')
    assert client.get(page.url.split("/")[-1]).result == {"id": number, "some": [-number, 0.5]}
    page.get_by_role("link", name="Open in Playground").click()
    expect(page.get_by_label("Input (the request's data, as JSON)")).to_have_value(
        re.compile(f'"id": {number}')
    )


def test_the_history_is_paged_and_filtered(client: Client, visit: Visit) -> None:
    load = [Submission({"text": "one of many"}, priority="low") for _ in range(60)]
    mine = {receipt.task_id for receipt in client.batch(load) if isinstance(receipt, Receipt)}
    # The API tells what to expect: rows of the page before may still be shown.
    until = time.monotonic() + 20
    expected: list[str] = []
    while not mine <= {*expected}:
        assert time.monotonic() < until
        time.sleep(0.05)
        found = client.list(status="completed", model="echo", priority="low", limit=100)
        expected = [task.task_id for task in found.tasks]
    newest, older = expected[:50], expected[50:]

    page = visit().open("/tasks")
    chosen = {"State": "completed", "Model": "echo", "Priority": "low", "Created": "15m"}
    for label, option in chosen.items():
        page.get_by_label(label, exact=True).select_option(option)
    links = page.get_by_role("region", name="Tasks", exact=True).get_by_role("link")
    expect(links).to_have_text([task_id[-12:] for task_id in newest])

    page.route(re.compile("/api/inference.*priority=normal"), lambda _: None)  # no answer comes
    page.get_by_label("Priority", exact=True).select_option("normal")
    # What is older than these is not what is older with the new filter.
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    expect(links).to_have_text([task_id[-12:] for task_id in newest])
    page.get_by_label("Priority", exact=True).select_option("low")
    expect(page.get_by_role("button", name="Older")).to_be_enabled()
    page.unroute_all()

    page.get_by_role("button", name="Older").click()
    expect(page.get_by_role("heading", name="Older tasks")).to_be_visible()
    expect(links).to_have_text([task_id[-12:] for task_id in older])
    rows = page.get_by_role("region", name="Tasks", exact=True).get_by_role("row")
    texts = [row.split("\t") for row in rows.all_inner_texts()[1:]]
    assert {(text[0].strip(), text[3].strip()) for text in texts} == {("completed", "low")}
    picture(page, "tasks-older")

    page.get_by_role("button", name="Newest").click()
    expect(page.get_by_title(newest[0])).to_be_visible()
    page.go_back()
    expect(page.get_by_title(older[0])).to_be_visible()
    page.get_by_label("State", exact=True).select_option("expired")
    expect(page.get_by_text("None matches these filters.")).to_be_visible()
    page.reload()
    for label, option in (chosen | {"State": "expired"}).items():
        expect(page.get_by_label(label, exact=True)).to_have_value(option)
    page.get_by_label("Created", exact=True).select_option("Any time")
    expect(page).to_have_url(re.compile(r"/tasks\?status=expired&model=echo&priority=low$"))


def test_the_models_page_tells_of_a_deployment_and_leads_to_its_tasks(
    client: Client, visit: Visit
) -> None:
    page = visit().open("/models")
    (model,) = page.request.get("/api/models").json()["models"]
    (replica,) = model["replicas"]
    deployment = page.get_by_role("region", name=re.compile(r"^echo:1\s*ready\s*default$"))
    expect(deployment).to_contain_text("Batch size, at most64")
    expect(deployment).to_contain_text("Enginepython")
    row = panel(page, "Replicas of echo:1").get_by_role("row", name=replica["worker"])
    expect(row).to_contain_text(re.compile("ready.*cpu"))
    completed = row.get_by_role("cell").last
    before = completed.inner_text()
    client.infer({"text": "one more"})
    expect(completed).not_to_have_text(before)
    deployment.get_by_text("Input schema").click()
    expect(deployment).to_contain_text('"sleep_ms"')
    picture(page, "models-schema")

    deployment.get_by_role("link", name="Try it: echo:1").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("echo:1")
    page.go_back()
    deployment.get_by_role("link", name="Tasks of echo").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("echo")
    expect(panel(page, "Newest tasks").get_by_role("row").nth(1)).to_contain_text("echo:1")


def test_an_input_comes_out_of_a_file(client: Client, visit: Visit, tmp_path: Path) -> None:
    page = visit().open("/playground")
    field = page.get_by_label("Input (the request's data, as JSON)")

    def upload(name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with page.expect_file_chooser() as chosen:
            page.get_by_role("button", name="Upload a file…").click()
        chosen.value.set_files(tmp_path / name)

    upload("note.txt", "Grüße\n".encode())
    expect(field).to_have_value('{\n  "text": "Grüße\\n"\n}')
    upload("picture.png", b"\x89PNG\x00")
    expect(page.get_by_text("picture.png is neither JSON nor text")).to_be_visible()
    expect(field).to_have_value(re.compile("Grüße"))
    picture(page, "playground-refused")
    upload("input.json", b'{"text": "out of a file"}')
    expect(page.get_by_text("picture.png")).to_have_count(0)
    page.get_by_role("button", name="Send", exact=True).click()
    expect(panel(page, "Result")).to_contain_text('"text": "out of a file"')


def test_through_the_gateway_all_is_as_without_it(
    client: Client, stack: RealStack, visit: Visit
) -> None:
    identity = stack.home.identity()
    assert identity is not None
    with Gateway(f"127.0.0.1:{stack.port}") as gateway:
        shutil.copytree(BUILT.parent, gateway.ui)
        page = visit(gateway.url).open("/overview")
        # Nobody is a local caller here.
        sign_in(page, identity.admin_password)
        expect(page.get_by_text(re.compile("^live"))).to_be_visible()
        page.get_by_role("link", name="Playground").click()
        send(page, '{"text": "through the gateway"}')
        expect(panel(page, "Result")).to_contain_text('"text": "through the gateway"')
        page.get_by_role("link", name="Overview").click()
        client.batch(Submission({"sleep_ms": 400}) for _ in range(300))
        moved = page.get_by_role("img", name=re.compile("^Tasks per second: completed [1-9]"))
        expect(moved).to_be_visible()
        picture(page, "overview-gateway")
        log = gateway.log()
    by_api = {line["path"].split("/")[1] for line in log if line["upstream"]}
    by_itself = {line["path"].split("/")[1] for line in log if not line["upstream"]}
    assert by_api == {"api"}
    assert {"overview", "assets"} <= by_itself


def test_a_problem_says_what_to_do(client: Client, visit: Visit) -> None:
    visitor = visit()
    page = visitor.open("/tasks/01975a3c-7f2e-7c41-9d0b-3f6e5a1b2c3d")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("There is no such task")
    expect(alert).to_contain_text("removed after its retention")
    visitor.open("/playground")
    send(page, '{"sleep_ms": "long"}')
    expect(alert).to_contain_text("The model does not take this input")
    expect(alert).to_contain_text("sleep_ms")
    visitor.open("/no/such/page")
    expect(page.get_by_text("There is no such page")).to_be_visible()


def test_what_has_the_focus_is_not_hidden(client: Client, visit: Visit) -> None:
    page = visit(viewport={"width": PHONE[0], "height": 400}).open("/tasks")
    load = [{"data": {"text": "one of many"}} for _ in range(60)]
    assert page.request.post("/api/inference/batch", data=load).ok
    expect(page.get_by_role("button", name="Older")).to_be_enabled()
    page.get_by_role("button", name="Older").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("region", name="Tasks", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    link = page.get_by_role("row").nth(1).get_by_role("link")
    expect(link).to_be_focused()
    in_sight = """(found) => {
      const { x, y, width, height } = found.getBoundingClientRect();
      return document.elementFromPoint(x + width / 2, y + height / 2) === found;
    }"""
    assert link.evaluate(in_sight), "the header covers it"


def test_a_new_page_begins_at_its_top_and_has_the_focus(client: Client, visit: Visit) -> None:
    page = visit(viewport={"width": PHONE[0], "height": 400}).open("/tasks")
    load = [{"data": {"text": "one of many"}} for _ in range(30)]
    assert page.request.post("/api/inference/batch", data=load).ok
    main = page.get_by_role("main")
    state = page.get_by_label("State", exact=True)
    state.focus()
    state.select_option("completed")
    expect(page).to_have_url(re.compile("status=completed"))
    # The same page with another filter leaves the focus where it was.
    expect(state).to_be_focused()

    link = page.get_by_role("row").nth(25).get_by_role("link")
    link.scroll_into_view_if_needed()
    assert page.evaluate("window.scrollY") > 0
    link.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("^Task 0"))
    assert page.evaluate("window.scrollY") == 0
    expect(main).to_be_focused()
    expect(main).to_have_css("outline-style", "none")

    old = page.url
    page.get_by_role("button", name="Retry as a new task").press("Enter")
    expect(page).not_to_have_url(old)
    expect(main).to_be_focused()


def test_strangers_sign_in(client: Client, stack: RealStack, visit: Visit) -> None:
    identity = stack.home.identity()
    assert identity is not None
    page = visit(f"http://{STRANGER}:{stack.port}").open("/tasks")
    sign_in(page, "wrong")
    expect(page.get_by_role("alert")).to_contain_text("the username or the password is wrong")
    page.get_by_label("Password").fill(identity.admin_password)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Tasks")
    page.goto("/playground")
    expect(panel(page, "The same request")).to_contain_text("Bearer $INFERSTACK_TOKEN")
    given = page.get_by_label("Input (the request's data, as JSON)")
    given.fill('{"text": "nobody else shall see this"}')
    page.goto("/overview")
    expect(page.get_by_text(re.compile("^live"))).to_be_visible()
    page.get_by_role("link", name="Playground").click()
    expect(given).to_have_value(re.compile("nobody else"))
    page.get_by_role("button", name="Sign out").click()
    sign_in(page, identity.admin_password)
    expect(given).to_have_value(re.compile('"text"'))
    expect(given).not_to_have_value(re.compile("nobody else"))


def test_a_lost_connection_is_shown_and_heals(
    client: Client, stack: RealStack, visit: Visit
) -> None:
    page = visit().open("/overview")
    expect(page.get_by_text(re.compile("^live"))).to_be_visible()
    api = stack.child("api").process
    assert api is not None
    os.kill(api.pid, 9)
    lost = page.get_by_text("The connection to the server is lost")
    expect(lost).to_be_visible()
    stack.restarted("api", api)
    expect(lost).not_to_be_visible()
    expect(page.get_by_text(re.compile("^live"))).to_be_visible()


def test_a_connection_that_stalls_is_as_lost_as_one_that_is_refused(
    client: Client, stack: RealStack, visit: Visit
) -> None:
    page = visit().open("/overview")
    expect(page.get_by_text(re.compile("^live"))).to_be_visible()
    api = stack.child("api").process
    assert api is not None
    lost = page.get_by_text("The connection to the server is lost")
    os.kill(api.pid, signal.SIGSTOP)
    try:
        expect(lost).to_be_visible()
        expect(page.get_by_text("not live")).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
        picture(page, "overview-stalled")
    finally:
        os.kill(api.pid, signal.SIGCONT)
    expect(lost).not_to_be_visible()
    expect(page.get_by_text(re.compile("^live"))).to_be_visible()


def test_a_page_whose_script_does_not_load_says_what_to_do(client: Client, visit: Visit) -> None:
    visitor = visit()
    visitor.context.route(re.compile(r"/assets/.*\.js$"), lambda route: route.abort())
    page = visitor.open("/overview")
    expect(page.get_by_role("alert")).to_contain_text("The page could not be loaded")
    visitor.context.unroute_all()
    page.get_by_role("link", name="Reload the page").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize(("theme", "size"), LOOKS)
def test_every_page_can_be_read_by_everybody(
    client: Client, visit: Visit, theme: Any, size: tuple[int, int]
) -> None:
    width, height = size
    visitor = visit(viewport={"width": width, "height": height}, color_scheme=theme)
    page = visitor.page
    failed = client.submit({"fail": f"{theme} {width}"}).task_id
    client.wait(failed)
    done = client.infer({"text": "Hello, world!"}).task_id
    wrong = []
    for path in [*PAGES, f"tasks/{done}", f"dead-letters/{failed}", *LOST]:
        visitor.open(f"/{path}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.get_by_text(re.compile("^Loading"))).to_have_count(0)
        wrong += [f"{path}: {violation}" for violation in visitor.violations()]
        if visitor.overflow():
            wrong.append(f"{path} is {visitor.overflow()} pixels too wide")
        if SCREENSHOTS:
            name = f"{path.split('/')[0]}{'-detail' if '/' in path else ''}"
            name = {LOST[0]: "problem", LOST[1]: "none"}.get(path, name)
            picture(page, f"{name}-{theme}-{width}")
    assert wrong == []

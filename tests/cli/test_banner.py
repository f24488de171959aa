"""What `up` prints once it is up."""

import io

from rich.console import Console

from inferstack import config
from inferstack.cli import banner
from inferstack.local.processes import ProcessId
from inferstack.local.state import StackState


def shown(*, chosen: bool, **settings: object) -> str:
    url = "http://127.0.0.1:8000"
    state = StackState(supervisor=ProcessId(1, ""), url=url, redis_url="", database_url="")
    wanted = config.load(admin_password="generated", secret_key="x" * 32, **settings)
    file = io.StringIO()
    console = Console(file=file, width=200, markup=False, highlight=False)
    banner.show(console, state, wanted, chosen=chosen, detached=False)
    return file.getvalue()


def test_the_first_request_to_paste_logs_in_where_callers_must() -> None:
    login = "TOKEN=$(curl -s http://127.0.0.1:8000/api/auth/login"
    text = shown(chosen=False, auth_required=True)
    assert login in text
    assert '"password=generated"' in text
    assert "$TOKEN" in text
    assert login not in shown(chosen=False)


def test_a_password_that_the_user_chose_is_not_printed() -> None:
    text = shown(chosen=True, auth_required=True)
    assert '"password=$ADMIN_PASSWORD"' in text
    assert "generated" not in text

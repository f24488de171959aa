"""No script goes without a model that it is held against."""

from importlib.resources import files

from inferstack.queue import scripts
from tests.queue.test_breaker_model import Breaker
from tests.queue.test_key_routes import Routes
from tests.queue.test_protocol import Protocol


def test_a_state_machine_runs_every_script() -> None:
    folder = files("inferstack.queue") / "scripts"
    names = {file.name.removesuffix(".lua") for file in folder.iterdir()}
    assert names - {*scripts.SHARED} == Protocol.SCRIPTS | Breaker.SCRIPTS | Routes.SCRIPTS

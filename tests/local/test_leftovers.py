"""Whose processes are ended: those of this home, never those of another that it is a copy of."""

import shutil
import signal

from inferstack.local import control, leftovers, processes, state
from inferstack.local.home import Home, folder_id
from inferstack.local.processes import MARK
from inferstack.local.state import ChildState, StackState
from tests.local.test_processes import PARENT, SLEEP, started


def test_a_copied_home_ends_nothing_of_the_stack_of_its_original(home: Home) -> None:
    """Copied while it ran: even the state file came along."""
    mark = home.mark(home.choose(redis=True, postgres=True))
    with started(SLEEP, {MARK: mark}) as process:
        identity = processes.identify(process.pid)
        assert identity is not None
        child = ChildState(name="worker", process=identity, stop=((signal.SIGTERM, 5.0),))
        known = StackState(
            supervisor=identity,
            folder=folder_id(home.root),
            url="",
            redis_url="",
            database_url="",
            children=[child],
        )
        state.write(home.state_file, known)
        copy = Home(home.root.with_name("copy"))
        shutil.copytree(home.root, copy.root)
        assert control.running(copy) is None
        assert leftovers.find(copy) == []
        assert leftovers.end(copy) == []
        leftovers.kill(copy)
        assert process.poll() is None

        assert control.running(home) == known
        home.root.rename(home.root.with_name("renamed"))
        renamed = Home(home.root.with_name("renamed"))
        assert leftovers.end(renamed) == ["worker"]
        assert process.wait(10) == -signal.SIGTERM


def test_what_a_child_started_is_ended_although_only_the_child_knew_whose_it_was(
    home: Home,
) -> None:
    mark = home.mark(home.choose(redis=True, postgres=True))
    with started(PARENT, {MARK: mark}) as process:
        identity = processes.identify(process.pid)
        assert identity is not None
        (replica,) = (found for found in processes.marked(mark) if found != identity)
        child = ChildState(name="worker", process=identity, stop=((signal.SIGTERM, 5.0),))
        known = StackState(
            supervisor=identity, url="", redis_url="", database_url="", children=[child]
        )
        state.write(home.state_file, known)
        assert leftovers.end(home) == ["worker", "1 more"]
        assert not processes.alive(replica)

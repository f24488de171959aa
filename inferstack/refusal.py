"""How a process ends that cannot run as it is configured."""

import os
import sys
from typing import NoReturn


def end(error: Exception) -> NoReturn:
    """Says in one line what is wrong, and ends the process with status 1.

    At once: a thread of the object store's client may still let go of what it brought, which
    aborts the process while the interpreter ends in the ordinary way.
    """
    print(error, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)

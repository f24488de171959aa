"""What must be true before anything is started."""

import asyncio

from inferstack.config import Settings
from inferstack.errors import StackError
from inferstack.local.home import port_free
from inferstack.local.stack import check_external


def default_model(wanted: Settings) -> None:
    """Whether the default model is among those that will be served.

    Raises:
        ModelFolderError: MODEL_PATH is not a readable folder.
        StackError: the default model is not there, so it would never become ready.
    """
    # Imported here: `status` and `down` need no reader of model folders.
    from inferstack.engines.repository import scan

    models, default = wanted.model_list, wanted.default_model
    if models and default not in models:
        raise StackError(
            f"DEFAULT_MODEL={default} is not in MODEL_LIST={','.join(models)}: "
            "add it there, or set DEFAULT_MODEL to one of those"
        )
    path = wanted.model_path.absolute()
    found = {entry.model for entry in scan(path, wanted)}
    if default not in found:
        raise StackError(
            f"there is no model {default} in MODEL_PATH={path}, which holds "
            f"{', '.join(sorted(found)) or 'none'}: set DEFAULT_MODEL or MODEL_PATH"
        )


def api_port(wanted: Settings) -> None:
    """Whether the API can have its port.

    Raises:
        StackError: something else listens there, or the address is not this machine's.
    """
    if not port_free(wanted.host, wanted.port):
        raise StackError(
            f"port {wanted.port} on {wanted.host} is in use: stop what listens there, "
            f"or choose another one: inferstack up --port {wanted.port + 1}"
        )


async def services(wanted: Settings) -> None:
    """Whether the services that were named by URL answer.

    Raises:
        StackError: one does not.
    """
    for variable, host, port in check_external(wanted):
        try:
            async with asyncio.timeout(5.0):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError):
            raise StackError(
                f"{variable}: nothing answers at {host}:{port}: start it, "
                f"or unset {variable} to let inferstack run its own"
            ) from None
        writer.close()

"""Whether a Ray cluster takes our token, before Ray is started. Imports no Ray.

Ray itself finds out after 20 attempts, one a second, and tells it in a stack trace.
"""

from inferstack import config
from inferstack.config import Settings
from inferstack.errors import ConfigurationError

ASKED = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""What every process of Ray asks the cluster's head first (2.60, `gcs_service.proto`)."""
PATIENCE = 5.0


def check(settings: Settings) -> None:
    """Asks the head of the cluster at RAY_ADDRESS; whatever else is wrong, Ray tells itself.

    Raises:
        ConfigurationError: it refuses RAY_AUTH_TOKEN, or asks for one and there is none.
    """
    address, token = settings.ray_address or "", settings.ray_auth_token
    _, _, port = address.rpartition(":")
    if "/" in address or not port.isdecimal():
        return
    if token is None and config.inherited().get("RAY_AUTH_MODE") == "token":
        return  # it is somewhere else, where Ray looks for it
    headers = [] if token is None else [("authorization", f"Bearer {token.get_secret_value()}")]
    if _refuses(address, headers):
        raise refused(settings)


def refused(settings: Settings) -> ConfigurationError:
    """What to say of a token that Ray does not take."""
    if settings.ray_auth_token is None:
        problem = f"RAY_AUTH_TOKEN is not set, and Ray at {settings.ray_address} asks for a token"
    else:
        problem = f"RAY_AUTH_TOKEN: Ray at {settings.ray_address} refuses this token"
    return ConfigurationError(f"{problem}: it takes that of the cluster's head")


def _refuses(address: str, headers: list[tuple[str, str]]) -> bool:
    import grpc  # slow, and only where there is a cluster

    # A proxy is for the world outside, and Ray takes none.
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(ASKED)(b"", timeout=PATIENCE, metadata=headers)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
    return False

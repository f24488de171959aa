"""Which stack a command is about: the one of this folder, or the one that the environment names."""

from inferstack import config
from inferstack.config import Settings
from inferstack.errors import ConfigurationError
from inferstack.local.control import absence, known_settings, running
from inferstack.local.home import Home


def home() -> Home:
    """INFERSTACK_HOME."""
    return Home(config.settings().inferstack_home)


def api_url(given: str | None) -> str | None:
    """Where the API is.

    Args:
        given: the option `--url` or INFERSTACK_URL.

    Returns:
        None if it was not given and nothing runs here: the SDK knows the usual place.
    """
    if given is None and (state := running(home())):
        return state.url
    return given


def with_database() -> Settings:
    """The settings with the DATABASE_URL of this place.

    Raises:
        ConfigurationError: it is not set and no stack ever ran here.
    """
    wanted = config.settings()
    found = known_settings(home(), wanted)
    if found.database_url is None:
        raise ConfigurationError(f"DATABASE_URL is not set. {absence(home())}")
    return found

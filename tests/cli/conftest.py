"""The server of the SDK's tests, which answers as the API's contract says."""

from tests.client.conftest import contract as contract
from tests.client.conftest import server as server

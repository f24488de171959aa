import msgspec
import pytest

from inferstack.deployment import Deployment, DeploymentState
from inferstack.storage.database import Database
from inferstack.storage.models import Models


@pytest.fixture
def models(database: Database) -> Models:
    return Models(database)


async def test_the_latest_state_of_each_version_is_kept(models: Models) -> None:
    first = Deployment(model="minilm", version=1, input_schema={"type": "object"}, max_cost=256.0)
    other = Deployment(model="minilm", version=2)
    await models.upsert([other, first])
    failed = msgspec.structs.replace(other, state=DeploymentState.FAILED, reason="no weights")
    await models.upsert([failed])
    assert await models.all() == [first, failed]


async def test_nothing_to_store_is_fine(models: Models) -> None:
    await models.upsert([])
    assert await models.all() == []

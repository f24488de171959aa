"""Which database an object store belongs to."""

from sqlalchemy import select

from inferstack.errors import ConflictError, NotFoundError
from inferstack.storage.database import Database
from inferstack.storage.objects import ObjectStore
from inferstack.storage.tables import installation

KEY = "installation"
"""The object that names the database."""


async def owns(database: Database, objects: ObjectStore) -> bool:
    """Whether an object store is this database's, for whoever removes what the database lacks.

    A store that is nobody's becomes this database's. It is not yet this time: if others use it,
    they have until the next time to say so.

    Raises:
        ConflictError: it is another's.
        StorageUnavailableError: one of the two does not answer.
    """
    async with database.transaction() as connection:
        own = str((await connection.execute(select(installation.c.id))).scalar_one())
    try:
        owner = (await objects.get(KEY)).decode()
    except NotFoundError:
        await objects.put(KEY, own.encode())
        return False
    if owner != own:
        raise ConflictError(
            f"the object store (S3_BUCKET) belongs to another database: its object {KEY} holds "
            f"{owner[:36]}, this one is {own}. Give each installation its own, or remove that "
            f"object if the other one is gone"
        )
    return True

"""Group reads: what is asked while a call is in flight is answered by the next call."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

GROUP = 256
"""Most questions in one call: it bounds how long Redis is busy with one call."""


class Grouper(Generic[Ask, Answer]):
    """Turns many single questions into few calls with many; one call in flight, no timer."""

    def __init__(self, call: Callable[[list[Ask]], Awaitable[list[Answer]]]) -> None:
        """Args: call: answers a list of questions, in their order."""
        self._call = call
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: Ask) -> Answer:
        """The answer to one question; raises what the call raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((question, future))
        if self._task is None:
            self._task = loop.create_task(self._answer_all())
        return await future

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
                await self._answer(group)
        finally:
            self._task = None

    async def _answer(self, group: list[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._call([question for question, _ in group])
        except Exception as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(group, answers, strict=True):
            if not future.done():
                future.set_result(answer)

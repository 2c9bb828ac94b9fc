"""Files that are sent together, by who waits for them: `stepstream sync`, and imports."""

import asyncio
from collections.abc import Sequence

from stepstream.artifacts.item import Item
from stepstream.artifacts.readers import Readers
from stepstream.artifacts.remote import Damaged, Refused, Remote, TooLarge
from stepstream.artifacts.sending import FILES_AT_ONCE, Again, Failed, Sending
from stepstream.artifacts.source import SourceFailed


class Batch:
    """Law: every item ends in `stored`, `failed` or `again`, unless the batch raises; it may then be sent again."""

    def __init__(self, remote: Remote, run_id: str, rank: int | None) -> None:
        self._remote = remote
        self._run_id = run_id
        self._rank = rank
        self.stored: list[Item] = []
        self.again: list[tuple[Item, str]] = []
        self.failed: list[tuple[Item, str]] = []

    async def send(self, items: Sequence[Item]) -> None:
        """Send them. Raises Unavailable and Rejected for what concerns the server or store as a whole."""
        limit = asyncio.Semaphore(FILES_AT_ONCE)
        with Readers() as readers:
            sending = Sending(self._remote, self._run_id, self._rank, readers)

            async def one(item: Item) -> None:
                async with limit:
                    await self._carry(sending, item)

            results = await asyncio.gather(*map(one, items), return_exceptions=True)
        for error in results:
            if error is not None:
                raise error

    async def _carry(self, sending: Sending, item: Item) -> None:
        try:
            await sending.carry(item)
            self.stored.append(item)
        except Failed as error:
            self.failed.append((item, str(error)))
        except TooLarge as error:
            self.failed.append((item, f"{item.path}: {error}"))
        except (Again, SourceFailed, Refused, Damaged) as error:
            self.again.append((item, f"{item.path}: {error}"))

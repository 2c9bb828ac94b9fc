"""What a worker does for ever beside its requests."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from stepstream_ingest import telemetry
from stepstream_ingest.errors import DatabaseAway

LOGGER: Final = logging.getLogger(__name__)


async def for_ever(what: str, once: Callable[[], Awaitable[object]], pause_s: float) -> None:
    """Do something, pause, do it again; what goes wrong is said and counted, and is no reason to stop.

    `what` says what is not done meanwhile, such as "silent runs are not looked for".
    """
    while True:
        try:
            await once()
        except DatabaseAway as error:
            telemetry.BACKGROUND_FAILURES.inc()
            LOGGER.warning("%s: %s", what, error)
        except Exception:
            telemetry.BACKGROUND_FAILURES.inc()
            LOGGER.exception("%s", what)
        await asyncio.sleep(pause_s)

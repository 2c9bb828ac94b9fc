"""Threads in which points are decoded, merged and written down: a question over millions of them stops nobody else."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

THREADS: Final = 2
"""Of their own: what commits and compaction do in threads waits for no reader. More would wait for each other."""
_POOL: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="read")
# A worker is forked after this was imported: the threads begin with its first question.

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def aside(work: Callable[Arguments, Result], *said: Arguments.args, **named: Arguments.kwargs) -> Result:
    """What the work returns, or raises."""
    return await asyncio.get_running_loop().run_in_executor(_POOL, partial(work, *said, **named))

"""Calls in threads whose results come in order, so few at a time that they take little memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def in_order(work: Iterable[Callable[[], Any]], threads: int) -> Iterator[Any]:
    """The results of calls made in threads, in their order, a few ahead."""
    if threads <= 1:
        for call in work:
            yield call()
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Any]] = deque()
        try:
            for call in work:
                waiting.append(pool.submit(call))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

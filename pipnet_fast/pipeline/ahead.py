"""Work that goes on in the background, a few items ahead of who takes them."""

import threading
from collections.abc import Generator, Iterable, Iterator
from queue import Full, Queue
from typing import Any, TypeVar

Item = TypeVar("Item")

# How soon a thread sees that nobody waits for it any more.
POLL_S = 0.05
# A thread that is stuck, in a camera for instance, is left behind after that.
PATIENCE_S = 5.0


def ahead(items: Iterable[Item], limit: int) -> Generator[Item, None, None]:
    """The items of an iterable, which is run in a thread of its own, at most ``limit`` items ahead.

    An error in it is raised here, after the items before. Closing this generator, as an error where it is used does,
    stops the thread and closes the iterable; so several can stand one behind the other.
    """
    queue: Queue[tuple[str, Any]] = Queue(limit)
    stopped = threading.Event()
    thread = threading.Thread(target=_run, args=(items, queue, stopped), name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = queue.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stopped.set()
        thread.join(PATIENCE_S)


def _run(items: Iterable[Any], queue: "Queue[tuple[str, Any]]", stopped: threading.Event) -> None:
    def put(kind: str, value: Any) -> bool:
        """Whether it was taken in."""
        while not stopped.is_set():
            try:
                queue.put((kind, value), timeout=POLL_S)
                return True
            except Full:
                pass
        return False

    iterator: Iterator[Any] | None = None
    try:
        iterator = iter(items)
        for item in iterator:
            if not put("item", item):
                break
        else:
            put("end", None)
    except BaseException as error:
        put("error", error)
    finally:
        if isinstance(iterator, Generator):
            iterator.close()

"""Where the work is done: never on the event loop, but in a thread with a queue that refuses to grow.

A job is a function, or a generator of events if it takes long. A worker lets generators take turns, an event each, and
what is new comes first: the bars of the next token appear while a long text is being written, and a job that nobody
waits for any more ends at its next event.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

from glassgpt.serving.events import Event, EventLog
from glassgpt.serving.refusals import Cancelled, Refusal, refusal_of

MOST_JOBS = 16  # of one worker, waiting and under way; the next is refused
SECONDS_TO_END = 5.0  # that a worker which is closed may take over the step it is in


class Job:
    """Work that was asked for: `events` as they come, `answer` once it is done.

    The last event is "done" with the answer, or "error" with why there is none.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self.events = EventLog()
        self.answer: Future[Any] = Future()
        self.answer.set_running_or_notify_cancel()  # whoever waits for it can give up waiting, and no more
        self._work = work
        self._steps: Generator[Event, None, Any] | None = None
        self._lock = threading.Lock()
        self._has_begun = self._is_cancelled = False

    @property
    def is_done(self) -> bool:
        return self.answer.done()

    def cancel(self) -> None:
        """End it: now if it has not begun, else before its next turn."""
        with self._lock:
            self._is_cancelled = True
            if self._has_begun:
                return
        self._fail(Cancelled())

    def take_turn(self) -> bool:
        """Work up to the next event. Returns whether more is to come."""
        with self._lock:
            self._has_begun = True
            is_cancelled = self._is_cancelled
        if self.is_done:
            return False
        if is_cancelled:
            self.give_up()
            return False
        try:
            return self._work_on()
        except Exception as error:
            self._fail(error)
            return False

    def _work_on(self) -> bool:
        if self._steps is None:
            made = self._work()
            if not isinstance(made, Generator):
                self._end(made)
                return False
            self._steps = made
        try:
            event = next(self._steps)
        except StopIteration as end:
            self._end(end.value)
            return False
        self.events.add(event)
        return True

    def give_up(self) -> None:
        """Leave the rest undone."""
        if self._steps is not None:
            self._steps.close()
        self._fail(Cancelled())

    def _end(self, answer: Any) -> None:
        if isinstance(answer, dict):
            self.events.add(Event("done", answer))
        self.events.close()
        self.answer.set_result(answer)

    def _fail(self, error: Exception) -> None:
        if self.is_done:
            return
        self.events.add(Event("error", refusal_of(error).told()))
        self.events.close()
        self.answer.set_exception(error)


class Worker:
    """One thread that works on at most `most` jobs."""

    def __init__(self, name: str, most: int = MOST_JOBS) -> None:
        self.name, self.most = name, most
        self._waiting: deque[Job] = deque()
        self._turns: deque[Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=f"worker of {name}", daemon=True)
        self._thread.start()

    @property
    def n_jobs(self) -> int:
        """How many wait or are under way."""
        with self._changed:
            return self._n_jobs()

    def _n_jobs(self) -> int:
        return sum(not job.is_done for job in (*self._waiting, *self._turns))

    def submit(self, work: Callable[[], Any]) -> Job:
        """Have work done. Raises Refusal ("busy") where too much waits already."""
        job = Job(work)
        with self._changed:
            if self._is_closed:
                raise Cancelled(f"{self.name} is served no more")
            if self._n_jobs() >= self.most:
                raise Refusal("busy", f"{self.name} is at work for {self.most} requests already, and takes no more")
            self._waiting.append(job)
            self._changed.notify()
        return job

    def close(self) -> None:
        """Give up all jobs and take no more. The step that is under way is not waited for."""
        with self._changed:
            self._is_closed = True
            for job in (*self._waiting, *self._turns):
                job.cancel()
            self._changed.notify()

    def wait_until_closed(self) -> None:
        self._thread.join(SECONDS_TO_END)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            is_going_on = job.take_turn()
            with self._changed:
                self._turns.remove(job)
                if is_going_on:
                    self._turns.append(job)

    def _next(self) -> Job | None:
        """Whose turn it is: the first of those that have not begun, then who has waited longest. None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._turns or self._is_closed)
            if self._waiting:
                self._turns.appendleft(self._waiting.popleft())
            return self._turns[0] if self._turns else None

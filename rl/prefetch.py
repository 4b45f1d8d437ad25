"""Clips of the next step are decoded and processed while this one trains.

Workers are threads: they share the tensors that they make with the process that trains, where processes would have to hand them over, and
decoders and most of the processor let other threads run meanwhile. `benchmarks/prefetch.py` compares the two.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch

from omnistage.data.records import Record
from omnistage.rl.encoding import Encoded, Encoder
from omnistage.rl.sampler import StepSampler

Wanted = Mapping[Hashable, Record]


class Prefetch:
    """Hands over batches of inputs, and prepares those that come with as many threads as `encoder.workers` says.

    At most the next `depth` batches are begun ahead of time, and no more when those that are ready fill the encoder's own bound of bytes.
    A thread lives while there is something to prepare, so that none outlasts a run. What a thread cannot read is left to the step that
    needs it, which meets the error itself. Leaving it as a context manager stops the threads behind the clips that they have in hand.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.follows = False
        self._lock = threading.Lock()
        self._threads = 0
        self._coming: Iterator[Wanted] = iter(())
        self._depth = 0
        # The next batches; of their records those that nobody has begun, those in hand, and those that are ready.
        self._window: deque[Wanted] = deque()
        self._waiting: dict[Hashable, Record] = {}
        self._in_hand: set[Hashable] = set()
        self._ready: dict[Hashable, Encoded] = {}
        self._ready_bytes = 0
        self._waited_s = 0.0
        self._decoded = 0
        self._misses = encoder.misses

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self.follows = False
            self._coming = iter(())
            self._window.clear()
            self._waiting.clear()
            self._ready.clear()

    def follow(self, batches: Iterable[Sequence[Record]], depth: int = 1) -> None:
        """Begin to prepare `batches`, which will be taken in this order."""
        with self._lock:
            self.follows = True
            if self.encoder.workers:
                self._coming, self._depth = map(self._by_key, batches), depth
                self._fill()

    def take(self, records: Sequence[Record]) -> list[Encoded]:
        """Inputs of `records`, in their order; those of the batches after them are begun.

        A batch that is not the next of those that are followed (an evaluation's in the middle of training) is read here and now. Raises
        what the encoder raises, for the first record for which it does.
        """
        began = time.monotonic()
        wanted = self._by_key(records)
        due = bool(self._window) and list(self._window[0]) == list(wanted)
        if due:
            # The step cannot go on before they are there, so this thread is one more worker.
            while (found := self._next(wanted)) is not None:
                self._prepare(*found)
        try:
            rows = {key: self._ready.get(key) or self.encoder(record) for key, record in wanted.items()}
        finally:
            self._waited_s += time.monotonic() - began
            self._decoded += self.encoder.misses - self._misses
            self._misses = self.encoder.misses
            # Also behind a clip that cannot be read: whoever goes on without it takes the next batch.
            if due:
                with self._lock:
                    self._window.popleft()
                    self._fill()
        return [rows[self.encoder.key(record)] for record in records]

    def spent(self) -> tuple[float, int]:
        """Seconds for which batches were waited for, and prompts that were decoded for them, since this was last asked."""
        found = self._waited_s, self._decoded
        self._waited_s, self._decoded = 0.0, 0
        return found

    def _by_key(self, records: Sequence[Record]) -> Wanted:
        found: dict[Hashable, Record] = {}
        for record in records:
            found.setdefault(self.encoder.key(record), record)
        return found

    def _fill(self) -> None:
        """Let the window hold the next batches and nothing else, and start the threads that it needs. Call it under the lock."""
        self._window.extend(islice(self._coming, self._depth - len(self._window)))
        wanted = {key: record for batch in self._window for key, record in batch.items()}
        self._ready = {key: row for key, row in self._ready.items() if key in wanted}
        self._ready_bytes = sum(map(self.encoder.bytes_of, self._ready.values()))
        self._waiting = {key: record for key, record in wanted.items() if key not in self._ready and key not in self._in_hand}
        for _ in range(min(self.encoder.workers - self._threads, len(self._waiting))):
            self._threads += 1
            threading.Thread(target=self._work, name="omnistage-prefetch").start()

    def _work(self) -> None:
        while (found := self._next()) is not None:
            self._prepare(*found)

    def _next(self, among: Wanted | None = None) -> tuple[Hashable, Record] | None:
        """What to prepare now: for the step that waits anything `among` its own records, for a worker what comes next."""
        with self._lock:
            full = among is None and self._ready_bytes >= self.encoder.cache_bytes
            key = next((key for key in self._waiting if among is None or key in among), None)
            if key is None or full:
                if among is None:
                    self._threads -= 1
                return None
            self._in_hand.add(key)
            return key, self._waiting.pop(key)

    def _prepare(self, key: Hashable, record: Record) -> None:
        row: Encoded | None = None
        try:
            row = self.encoder(record)
        except Exception:  # noqa: BLE001
            # Whoever takes it asks the encoder again, and gets the error in its own place.
            pass
        finally:
            with self._lock:
                self._in_hand.discard(key)
                if row is not None and any(key in batch for batch in self._window):
                    self._ready[key] = row
                    self._ready_bytes += self.encoder.bytes_of(row)


def read_ahead(encoder: Encoder, batches: Sequence[Sequence[Record]]) -> Generator[list[Encoded], None, None]:
    """Inputs of each batch in turn; while the caller works on one, the next is prepared."""
    with Prefetch(encoder) as prefetch:
        prefetch.follow(batches)
        for batch in batches:
            yield prefetch.take(batch)


class PreparesAhead:
    """Mixed into a TRL trainer in front of it: the clips that its sampler will give are prepared while it trains.

    Threads end with `train`, however it ends.
    """

    prefetch: Prefetch
    records: Mapping[str, Record]
    accelerator: Any
    state: Any
    args: Any
    _metrics: Any
    # All that was waited for clips so far, of each time the longest wait of any process.
    waited_s = 0.0

    def _get_train_sampler(self, dataset: Any = None) -> StepSampler:
        raise NotImplementedError

    def train(self, *arguments: Any, **named: Any) -> Any:
        """As the trainer's own."""
        with self.prefetch:
            return super().train(*arguments, **named)  # type: ignore[misc]

    def _asked(self, records: Sequence[Record]) -> list[Record]:
        """All that is read for a batch of these records."""
        return list(records)

    def _follow(self, rows: int, given: int, depth: int = 1) -> None:
        """Prepare this process's batches of `rows` distinct rows each, from that on which `given` others stand before."""
        if self.prefetch.follows:
            return
        own, all_ = self.accelerator.process_index, self.accelerator.num_processes
        batches = islice(self._get_train_sampler().batches(rows, process=own, processes=all_), given, None)
        records = list(self.records.values())
        self.prefetch.follow((self._asked([records[row] for row in batch]) for batch in batches), depth)

    def _log_media(self, mode: str) -> None:
        """Note the longest wait for clips of any process, and the prompts that all of them decoded."""
        waited, decoded = self.prefetch.spent()
        of_all = torch.tensor([[waited, decoded]], device=self.accelerator.device)
        if self.accelerator.num_processes > 1:
            of_all = self.accelerator.gather(of_all)
        longest = float(of_all[:, 0].max())
        self.waited_s += longest
        self._metrics[mode]["media/wait_s"].append(longest)
        self._metrics[mode]["media/decoded"].append(float(of_all[:, 1].sum()))

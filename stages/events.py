"""A stage's TensorBoard events, written by who logs them: tensorboardX's own writer has a thread and a bounded queue, and waits for ever
once a write of that thread has failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from omnistage.stages.main_process import say


class Events:
    """Writes to a new file of `folder`. Steps from `begins` on that older files hold do not count any more.

    A write that fails ends the events, not the training: it is said once, and nothing is written any more.
    """

    def __init__(self, folder: Path, begins: int | None = None) -> None:
        self._folder = folder
        self._file: EventsWriter | None = None
        self._try(lambda: self._open(begins))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Add a number."""
        self.add_summary(summary.scalar(tag, value), step)

    def add_text(self, tag: str, text: str, step: int) -> None:
        """Add a text, which TensorBoard takes for Markdown."""
        self.add_summary(summary.text(tag, text), step)

    def add_summary(self, found: Summary, step: int) -> None:
        """Add values of any kind."""
        self._add(Event(wall_time=time.time(), step=step, summary=found))

    def flush(self) -> None:
        """Have on the disk what was added."""
        if (file := self._file) is not None:
            self._try(file.flush)

    def close(self) -> None:
        """End the file; what is added then is dropped."""
        if (file := self._file) is not None:
            self._try(file.close)
        self._file = None

    def _open(self, begins: int | None) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(self._folder / "events"))
        if begins is not None:
            self._add(Event(wall_time=time.time(), step=begins, file_version="brain.Event:2"))
            self._add(Event(wall_time=time.time(), step=begins, session_log=SessionLog(status=SessionLog.START)))

    def _add(self, event: Event) -> None:
        if (file := self._file) is not None:
            self._try(lambda: file.write_event(event))

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            file, self._file = self._file, None
            say(f"  {self._folder}: TensorBoard's events end here, for they cannot be written ({error.strerror or error})")
            if file is not None:
                with suppress(OSError):
                    file.close()

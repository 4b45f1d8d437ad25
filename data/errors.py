"""One hierarchy of errors. Each is also the standard error that a reader of the traceback expects.

`InputError` is what the user can mend (file, record, field, what is allowed); the command line prints it as one line and exits with 2.
Anything else that escapes is a fault of the work itself and exits with 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar, Literal


class OmnistageError(Exception):
    """Base of every error that this package raises on purpose; `exit_code` is that of a command which it ends."""

    exit_code: ClassVar[int] = 1


class InputError(OmnistageError, ValueError):
    """Something that the user gave is wrong and can be mended by the user."""

    exit_code = 2


class Preempted(KeyboardInterrupt):
    """The run was asked to stop, and has saved what it had; the code is EX_TEMPFAIL of sysexits: try again.

    No `OmnistageError`: it comes from a signal, in the middle of anything, and whoever guards against the errors of a user's code
    must not catch it.
    """

    exit_code: ClassVar[int] = 75


class RecipeError(InputError):
    """A recipe has an unknown key, a wrong value, or values that exclude each other."""


class RecordError(InputError):
    """A row of an annotation file does not hold what its format says."""


MediaFault = Literal["missing", "unreadable", "truncated", "no_picture", "no_frames", "no_sound", "too_short"]


class MediaError(InputError, OSError):
    """A clip is missing, unreadable, outside its media root, or has no stream of the kind that is asked for; `code` says which."""

    def __init__(self, message: str, code: MediaFault = "unreadable") -> None:
        super().__init__(message)
        self.code = code


class RewardError(OmnistageError, RuntimeError):
    """A reward function failed; the message names the reward and the record."""


class GateError(OmnistageError, RuntimeError):
    """A stage's model does not pass the stage's gate; the run has ended before the next stage, and the message says how to go on."""


class BlindBatchError(OmnistageError, RuntimeError):
    """A batch has media placeholders in its token ids and no features for them: it would train blind."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """One line that names the unknown thing, the nearest known one and all that are known."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {what} {name!r}{hint} known: {', '.join(names)}"

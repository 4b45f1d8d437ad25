"""A conversation in a terminal with a checkpoint: text, media files, and the poses that it makes.

    /see PATH     show a picture or a clip (and hear it, where it has sound)
    /mute PATH    show a clip without its sound
    /reset        forget what was said and shown
    /quit         end (so does the end of the input)

Everything else is a question. The model reads all media before the first turn, as in training, wherever in the conversation they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from omnistage.data import prompts
from omnistage.data.errors import InputError
from omnistage.data.records import MediaRef
from omnistage.rl.encoding import Encoder
from omnistage.rl.heads import carried
from omnistage.rl.heads.carried import Head
from omnistage.rl.heads.predict import Reader
from omnistage.rl.heads.spec import BODY_JOINTS
from omnistage.stages import asking, files, predict

HELP = "/see PATH, /mute PATH, /reset, /quit; anything else is a question"


class Chat:
    """A conversation under way. `head` (one at a token, or None) reads the answers, and its poses are written to `out`."""

    def __init__(self, model: Any, encoder: Encoder, head: Head | None, out: Path, *, max_new_tokens: int = 256) -> None:
        self.encoder = encoder
        self.head = head
        self.out = out
        self.max_new_tokens = max_new_tokens
        self.reader = Reader(model, encoder, head)
        self.refs: list[MediaRef] = []
        self.history: list[tuple[str, str]] = []
        self.poses = 0

    def say(self, said: str) -> Iterable[str]:
        """What is printed for one line of the user's, command or question. Raises `InputError` for what cannot be read."""
        command, _, rest = said.strip().partition(" ")
        if command in ("/see", "/mute"):
            if not rest.strip():
                raise InputError(f"{command}: needs a path")
            self.refs.append(asking.media_of(str(Path(rest.strip()).expanduser()), heard=command == "/see"))
            return [f"({self.refs[-1].kind}{' with its sound' if self.refs[-1].sound else ''}: {rest.strip()})"]
        if command == "/reset":
            self.refs, self.history = [], []
            return ["(forgotten)"]
        if command.startswith("/"):
            raise InputError(f"{command}: no such command; {HELP}")
        return self.ask(said.strip())

    def ask(self, question: str) -> list[str]:
        """The answer, and where each pose in it was written."""
        record = asking.record_of(question, self.refs, history=self.history)
        row = self.encoder(record)
        [ids] = self.reader.answers([row], self.max_new_tokens)
        said = self.encoder.processor.tokenizer.decode(ids, skip_special_tokens=False)
        # As a turn that the next question looks back on, one that a policy made up would end the conversation.
        answer = prompts.CONTROL_TOKEN.sub("", said).strip()
        values = [] if self.head is None else self.reader.values([row], [ids])[0]
        self.history.append((question, answer))
        return [answer, *(self._shown(value) for value in values)]

    def _shown(self, value: dict[str, Any]) -> str:
        if len(value.get("rotations", ())) != BODY_JOINTS:
            return f"  {value}"
        files.make_folder(self.out, "--out")
        self.poses += 1
        stem = self.out / f"pose-{self.poses}"
        predict.write_pose(stem, value["rotations"], label=f"pose {self.poses}")
        return f"  (pose {self.poses}: {stem}.png and .json)"


def token_head(model: Any) -> Head | None:
    """The first head that reads a token of an answer, if there is one."""
    return next((head for head in carried.heads_of(model).values() if head.spec.token is not None), None)


def converse(chat: Chat, lines: Iterable[str], show: Callable[[str], None]) -> None:
    """Answer line after line until `/quit` or the end; a line that cannot be used is told, and the conversation goes on."""
    for said in lines:
        if said.strip() == "/quit":
            return
        if not said.strip():
            continue
        try:
            for told in chat.say(said):
                show(told)
        except InputError as error:
            show(f"({error})")

"""TensorBoard's events as their readers find them, and a disk that takes none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import SessionLog

from events import all_of, events_of
from omnistage.stages import files
from omnistage.stages.events import Events

# The system writes no file beyond 64 kB: the error of a full disk but for its number.
LOGS = """
import resource, sys
from pathlib import Path
from tensorboardX.proto.summary_pb2 import Summary
from transformers import TrainerControl, TrainerState, TrainingArguments
from omnistage.stages.training import RunLog

out = Path(sys.argv[1])
args, state, control = TrainingArguments(str(out / "trainer"), use_cpu=True), TrainerState(), TrainerControl()
state.max_steps = 100
log = RunLog(out, "video")
log.on_train_begin(args, state, control)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
for step in range(1, 101):
    state.global_step = step
    log.writer.add_summary(Summary(value=[Summary.Value(tag="big", image=Summary.Image(encoded_image_string=bytes(128_000)))]), step)
    log.on_log(args, state, control, {"loss": 0.5})
if sys.argv[2] == "ends":
    log.on_train_end(args, state, control)
else:
    raise SystemExit(1)
"""


@pytest.mark.parametrize(("how", "code"), [("ends", 0), ("fails", 1)])
def test_events_that_cannot_be_written_stop_nothing(how: str, code: int, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOGS, str(tmp_path), how], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert done.stdout == f"  {tmp_path / 'events'}: TensorBoard's events end here, for they cannot be written (File too large)\n"
    assert "Traceback" not in done.stderr
    assert [row["step"] for row in files.read_lines(tmp_path / "metrics.jsonl")] == list(range(1, 101))


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "events").touch()
    written = Events(tmp_path / "events", begins=1)
    written.add_scalar("loss", 0.5, 1)
    written.close()
    assert capsys.readouterr().out.count("\n") == 1


def test_what_was_added_is_there_after_a_flush(tmp_path: Path) -> None:
    """A stage that goes on says from which step on older files do not count."""
    written = Events(tmp_path, begins=7)
    written.add_scalar("video/loss", 0.5, 7)
    written.add_text("video/text", "said", 7)
    written.flush()
    found = events_of(tmp_path)
    assert found["video/loss", 7].simple_value == 0.5
    assert found["video/text/text_summary", 7].tensor.string_val == [b"said"]
    first, second, third = all_of(tmp_path)[:3]
    assert [one.file_version for one in (first, second)] == ["brain.Event:2"] * 2
    assert (second.step, third.step, third.session_log.status) == (7, 7, SessionLog.START)
    written.close()
    written.add_scalar("video/loss", 0.25, 8)
    assert len(all_of(tmp_path)) == 5

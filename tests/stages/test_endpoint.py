"""Answers of records by a server, against a real one on loopback that decodes what it is sent."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from answer_server import TOKENS_OUT, AnswerServer, seen
from clip_files import GREY_STEP, tone, write_clip, write_image, write_wav
from omnistage.data.errors import InputError
from omnistage.data.media import MediaLimits
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record
from omnistage.rewards.judges.service import Service
from omnistage.stages.answering.endpoint import Asking, answer
from omnistage.stages.answering.parts import Shown
from omnistage.stages.benchmarks.items import Prediction

SECRET = "sk-2d9b71c5ae04"


def asked(question: str, *media: MediaRef, **fields: Any) -> Record:
    modality = Modality.VIDEO if media else Modality.TEXT
    return Record(question, modality, "task", AnswerKind.OPEN, question, "", media, **fields)


def service(server: AnswerServer, **settings: Any) -> Service:
    return Service(url=server.url, model="m", **{"timeout_s": 10.0, **settings})


def shown(**settings: Any) -> Asking:
    return Asking(Shown(template="plain", **settings))


def answers(records: list[Record], to: Service, asking: Asking | None = None) -> dict[str, Prediction]:
    return {found.id: found for batch in answer(records, to, asking or shown()) for found in batch}


def only(record: Record, server: AnswerServer, asking: Asking | None = None, **settings: Any) -> Prediction:
    (found,) = answers([record], service(server, **settings), asking).values()
    return found


def test_the_frames_and_the_sound_of_a_video_are_those_of_the_policy(tmp_path: Path) -> None:
    """Greys 0, 6, 12 ... 90 in 16 frames at 8 a second, heard. At 2 a second that is 4 frames of 2 s: numbers 0, 5, 10 and 15, so greys
    0, 30, 60 and 90 up to what encoding twice leaves; the tone of 1 s is 16,000 samples."""
    clip = write_clip(tmp_path / "a.mp4", 16, 8, sound_s=1.0)
    with AnswerServer() as server:
        found = only(asked("What?", MediaRef("video", clip, sound=clip)), server)
        (body,) = server.bodies
    assert (found.status, found.run, found.tokens) == ("ok", "greedy", TOKENS_OUT)
    parts = [part.split() for part in seen(body)]
    assert [part[:2] for part in parts[:4]] == [["picture", "64x48"]] * 4
    assert [float(part[2]) for part in parts[:4]] == pytest.approx([GREY_STEP * at for at in (0, 5, 10, 15)], abs=3)
    assert parts[4][:2] == ["sound", "16000"]
    assert abs(int(parts[4][2]) - 16_000) <= 2048, "an encoder's frames fill up its last one"
    assert len(parts) == 5
    content = body["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", *["image_url"] * 4, "input_audio", "text"]
    assert content[0]["text"] == "A video as 4 frames, 2 of them a second:"
    assert content[-1]["text"] == "What?"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 512)


def test_limits_pixels_and_silence(tmp_path: Path) -> None:
    """Two frames at most, of 768 pixels at most: 64 x 48 is 3072, so each side is halved. 0.5 s of a sound that is blank: 8,000 zeros."""
    clip = write_clip(tmp_path / "a.mp4", 16, 8)
    sound = write_wav(tmp_path / "a.wav", [tone(1.0)])
    with AnswerServer() as server:
        ref = MediaRef("audio", sound, blank=frozenset({"sound"}))
        asking = shown(limits=MediaLimits(max_frames=2, max_sound_s=0.5), max_pixels=768)
        only(asked("What?", MediaRef("video", clip), ref), server, asking)
        (body,) = server.bodies
    parts = seen(body)
    assert [part.split()[1] for part in parts[:2]] == ["32x24", "32x24"]
    assert parts[2:] == ["sound 16000 8000 0"]


def test_a_sound_arrives_as_it_is(tmp_path: Path) -> None:
    """A tone of half of full scale: its peak is half of 32,767, and 0.25 s of it 4,000 samples."""
    sound = write_wav(tmp_path / "a.wav", [tone(0.25)])
    with AnswerServer() as server:
        found = only(asked("What?", MediaRef("audio", sound)), server)
    assert found.raw is not None
    name, rate, count, peak = found.raw.partition("|")[2].split()
    assert (name, rate, count) == ("sound", "16000", "4000")
    assert int(peak) == pytest.approx(16_383, abs=2)


def test_an_image_is_one_picture_without_a_rate(tmp_path: Path) -> None:
    with AnswerServer() as server:
        only(asked("What?", MediaRef("image", write_image(tmp_path / "a.png"))), server)
        (body,) = server.bodies
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "text"]
    assert seen(body)[0].startswith("picture 84x56 ")


def test_files_are_sent_whole_and_a_heard_video_with_its_sound(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 16, 8, sound_s=0.5)
    image, sound = write_image(tmp_path / "b.png"), write_wav(tmp_path / "c.wav", [tone(0.25, 8_000)], rate=8_000)
    refs = (MediaRef("video", clip, sound=clip), MediaRef("image", image), MediaRef("audio", sound), MediaRef("video", clip))
    with AnswerServer() as server:
        found = only(asked("What?", *refs), server, shown(media="files"))
        (body,) = server.bodies
    assert found.status == "ok"
    types = [part["type"] for part in body["messages"][0]["content"]]
    assert types == ["video_url", "audio_url", "image_url", "audio_url", "video_url", "text"]
    whole, heard, picture, own, unheard = seen(body)
    assert whole == unheard == f"file video/mp4 {Path(clip).stat().st_size}"
    assert heard.startswith("sound 16000 ")
    assert picture == f"file image/png {Path(image).stat().st_size}"
    assert own.split()[:3] == ["sound", "8000", "2000"], "the file's own rate"


def test_altered_clips_and_folders_are_no_files(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 4, 2)
    with AnswerServer() as server:
        for ref in (MediaRef("video", clip, blank=frozenset({"picture"})), MediaRef("video", clip, shuffle=1)):
            with pytest.raises(InputError, match=r"^What\?: '.*a\.mp4' is shown blank or shuffled, and media is 'files'"):
                only(asked("What?", ref), server, shown(media="files"))
        with pytest.raises(InputError, match=r"is a folder of frames, and media is 'files'.*; allowed: 'frames'$"):
            only(asked("What?", MediaRef("video", str(tmp_path))), server, shown(media="files"))
        assert server.bodies == []


def test_history_and_system_are_plain_text_and_clips_come_first(tmp_path: Path) -> None:
    image = MediaRef("image", write_image(tmp_path / "a.png"))
    record = asked("And now?", image, history=(("What is it?", "A ball."),))
    with AnswerServer() as server:
        only(record, server, shown(system="Be brief."))
        (body,) = server.bodies
    system, first, reply, last = body["messages"]
    assert (system, reply) == ({"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "A ball."})
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    assert last == {"role": "user", "content": "And now?"}


def test_the_wording_is_that_of_the_template() -> None:
    record = Record("a", Modality.TEXT, "t", AnswerKind.SINGLE_CHOICE, "Which?", "A", options=("red", "blue"))
    with AnswerServer() as server:
        only(record, server, Asking(Shown(template="think_answer")))
        (body,) = server.bodies
    assert body["messages"][0]["content"].startswith("Which?\nA. red\nB. blue\n\nReason step by step between <think>")


@pytest.mark.parametrize("fault", ["429", "408", "500", "503", "cut", "half", "hang"])
def test_a_passing_fault_is_tried_again_under_the_same_key(fault: str) -> None:
    with AnswerServer(plan={"What?": [fault, fault]}) as server:
        found = only(asked("What?"), server, timeout_s=0.4)
        assert (found.status, found.raw) == ("ok", "What?|")
        assert len(server.keys["What?"]) == 3
        assert len(set(server.keys["What?"])) == 1


def test_retry_after_is_waited_for() -> None:
    with AnswerServer(plan={"What?": ["429 1"]}) as server:
        assert only(asked("What?"), server).status == "ok"
        assert 1.0 <= server.times[1] - server.times[0] < 5


@pytest.mark.parametrize(
    ("fault", "error", "requests"),
    [
        ("400", "status 400: no: None", 1),
        ("401", "status 401: no: None", 1),
        ("500", "status 500: no: None", 2),
        ("half", "no completion in the body", 2),
        ("cut", "connection lost", 2),
        ("hang", "time-out", 2),
    ],
)
def test_what_fails_for_good_is_an_error_with_its_reason_and_the_others_go_on(fault: str, error: str, requests: int) -> None:
    with AnswerServer(plan={"What?": [fault] * 9}) as server:
        found = answers([asked("What?"), asked("Who?")], service(server, attempts=2, timeout_s=0.5))
        assert found["What?"] == Prediction("What?", "greedy", None, "error", error=error)
        assert found["Who?"].status == "ok"
        assert len(server.keys["What?"]) == requests


def test_no_server_at_all() -> None:
    with AnswerServer() as server:
        gone = service(server, attempts=1)
    assert answers([asked("What?")], gone)["What?"].error == "no connection"


def test_a_clip_that_cannot_be_read_is_an_error_and_is_not_sent(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip")
    gone = str(tmp_path / "gone.mp4")
    records = [asked("a", MediaRef("video", str(broken))), asked("b", MediaRef("video", gone)), asked("c")]
    with AnswerServer() as server:
        found = answers(records, service(server))
        whole = answers(records[1:], service(server), shown(media="files"))
    assert (found["a"].status, found["b"].status, found["c"].status) == ("error", "error", "ok")
    assert "broken.mp4' cannot be read as a clip" in str(found["a"].error)
    assert str(found["b"].error).endswith("gone.mp4' does not exist")
    assert found["b"].error == whole["b"].error
    assert set(server.keys) == {"c"}


@pytest.mark.parametrize(
    ("reply", "manner", "raw", "status"),
    [
        ("yes", "ok", "yes", "ok"),
        ("yes, bec", "length", "yes, bec", "truncated"),
        ("", "length", "", "truncated"),
        (" \n", "ok", " \n", "empty"),
        (None, "ok", "", "empty"),
        ("\ud800 yes", "ok", "", "empty"),
    ],
)
def test_the_status_of_an_answer(reply: Any, manner: str, raw: str, status: str) -> None:
    with AnswerServer(plan={"What?": [manner]}, replies={"What?": reply}) as server:
        found = only(asked("What?"), server)
    assert (found.raw, found.status, found.tokens, found.error) == (raw, status, TOKENS_OUT, None)


def test_no_more_than_concurrency_under_way_and_a_slow_one_holds_up_no_other() -> None:
    """One of three places hangs for its second; the other two go on, so that its answer comes last of 12."""
    records = [asked(str(number)) for number in range(12)]
    with AnswerServer(plan={"0": ["hang"]}, delay_s=0.02) as server:
        batches = list(answer(records, service(server, concurrency=3, timeout_s=1.0, attempts=1), shown()))
        assert server.most_under_way == 3
    assert max(map(len, batches)) <= 3
    order = [found.id for batch in batches for found in batch]
    assert sorted(order, key=int) == [record.id for record in records]
    assert order[-1] == "0"
    assert [found.status for found in batches[-1]] == ["error"]


def test_records_are_drawn_as_they_are_asked_and_whoever_stops_leaves_no_request_behind() -> None:
    drawn = []

    def records() -> Any:
        for number in range(100):
            drawn.append(number)
            yield asked(str(number))

    with AnswerServer(plan={str(number): ["hang"] for number in range(1, 100)}) as server:
        found = answer(records(), service(server, concurrency=4), shown())
        assert [first.id for first in next(found)] == ["0"]
        found.close()  # type: ignore[attr-defined]
        assert len(drawn) == 4
        deadline = time.monotonic() + 10
        while server.under_way.total() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.under_way.total() == 0


def test_another_run_is_another_sample_with_its_own_fields() -> None:
    record = asked("What?")
    with AnswerServer() as server:
        to = service(server, temperature=0.7)
        for number in range(2):
            found = answers([record], to, Asking(Shown(template="plain"), run=f"sample-{number}", body={"seed": number}))
            assert found["What?"].run == f"sample-{number}"
        assert [(body["seed"], body["temperature"]) for body in server.bodies] == [(0, 0.7), (1, 0.7)]
        assert len(set(server.keys["What?"])) == 2


def test_the_key_reaches_the_server_and_no_prediction(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The server repeats it in its error, and in its answer."""
    monkeypatch.setenv("ANSWERS_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    with AnswerServer(plan={"a": ["400"]}, replies={"b": f"Bearer {SECRET}"}) as server:
        found = answers([asked("a"), asked("b")], service(server, key_env="ANSWERS_KEY"))
        assert server.authorizations == {f"Bearer {SECRET}"}
    assert found["a"].error == "status 400: no: Bearer [key]"
    assert found["b"].raw == "Bearer [key]"
    assert SECRET not in caplog.text


def test_settings_that_cannot_be() -> None:
    with AnswerServer() as server:
        with pytest.raises(InputError, match=r"^most_calls is 3; must be left out: answers have no ledger to count in$"):
            answer([], service(server, most_calls=3))
        assert list(answer([], service(server))) == []
    with pytest.raises(InputError, match=r"^body has the fields messages, model; must have none of "):
        Asking(body={"model": "m", "messages": []})
    for settings, message in (
        ({"template": "long"}, "template is 'long'; allowed: think_answer, "),
        ({"media": "urls"}, "media is 'urls'; allowed: frames, files"),
        ({"max_pixels": 0}, "max_pixels is 0; must be at least 1"),
        ({"quality": 96}, "quality is 96; must be from 1 to 95"),
    ):
        with pytest.raises(InputError) as caught:
            Shown(**settings)
        assert str(caught.value).startswith(message)


def test_what_is_louder_than_full_scale_is_cut_and_not_wrapped(tmp_path: Path) -> None:
    """Floats of 2.0 in a file become 32,767; wrapped around they would be -2."""
    path = tmp_path / "loud.wav"
    samples = np.full(4_000, 2.0, "<f4").tobytes()
    header = b"RIFF" + (36 + len(samples)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    form = b"".join(n.to_bytes(size, "little") for n, size in ((3, 2), (1, 2), (16_000, 4), (64_000, 4), (4, 2), (32, 2)))
    path.write_bytes(header + form + b"data" + len(samples).to_bytes(4, "little") + samples)
    with AnswerServer() as server:
        found = only(asked("What?", MediaRef("audio", str(path))), server)
    assert found.raw == "What?|sound 16000 4000 32767"

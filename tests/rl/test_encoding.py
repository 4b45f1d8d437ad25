"""A record's inputs: sound frames, caching, and what is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from omnistage.data import media
from omnistage.data.errors import MediaError
from omnistage.data.records import MediaRef, Modality, Record
from omnistage.rl import policy
from omnistage.rl.encoding import Encoder
from omnistage.rl.towers import Towers
from world import World


def test_sound_frames_equal_the_full_window(world: World) -> None:
    """Padding to the end of the sound plus one analysis window gives the frames that padding to 30 s gives."""
    model = world.model()
    encoder = world.encoder(model)
    record = world.records("audio")[0]
    (mel,) = encoder(record).mels
    sound = media.decode(record.media[0], encoder.shape.limits).sound
    assert sound is not None
    full = encoder.processor.feature_extractor(
        [sound], sampling_rate=16000, padding="max_length", return_attention_mask=True, return_tensors="pt"
    )
    expected = full["input_features"][0][:, full["attention_mask"][0].bool()]
    assert mel.shape == expected.shape == (32, 200)
    assert float((mel - expected).abs().max()) < 1e-5


def test_sound_in_a_clip_is_laid_out_in_time(world: World) -> None:
    """2 s at 2 fps: two grids at times 0 and 25, and 49 sound tokens at times 0..48, interleaved on one clock of 25 steps a second."""
    model = world.model()
    row = world.encoder(model)(world.records("audio_video")[0])
    ids = torch.tensor(row.ids)
    video = row.positions[0, ids == model.config.video_token_id]
    audio = row.positions[0, ids == model.config.audio_token_id]
    start = int(audio.min())
    assert sorted(set((video - start).tolist())) == [0, 25]
    assert (audio - start).tolist() == list(range(len(audio)))
    assert 48 <= len(audio) <= 50


def test_features_of_a_frozen_tower_do_not_depend_on_the_batch(world: World) -> None:
    model = world.model()
    policy.freeze(model, ["vision", "audio"])
    records = world.records("audio_video")
    alone, together = world.encoder(model), world.encoder(model)
    towers = Towers(model)
    towers.media([alone(records[0])], model.device)
    towers.media([together(r) for r in records], model.device)
    for key, features in alone(records[0]).features.items():
        assert torch.equal(features, together(records[0]).features[key])
    assert len(alone(records[0]).features) == 2


def test_a_trained_tower_makes_its_features_stale(world: World) -> None:
    """Features are kept under the hash of the tower's weights: after a change they are made again."""
    model = world.model()
    policy.freeze(model, ["vision"])
    row = world.encoder(model)(world.records("video")[0])
    first = Towers(model)
    first.media([row], model.device)
    with torch.no_grad():
        next(value for _, value in policy.parameters_of(model, "vision")).add_(0.1)
    second = Towers(model)
    second.media([row], model.device)
    assert (first.origins["encoded"], second.origins["encoded"]) == (1, 1)
    one, two = row.features.values()
    assert not torch.equal(one, two)


def test_the_cache_is_bounded_and_keeps_the_latest(world: World) -> None:
    model = world.model()
    whole = world.encoder(model)
    records = world.records("video")
    size = whole(records[0]).size
    encoder = Encoder(whole.processor, model.config, shape=whole.shape, template="short", cache_bytes=int(2.5 * size))
    for index in (0, 1, 0, 2, 0, 1):
        encoder(records[index])
    assert (encoder.hits, encoder.misses) == (2, 4)


def test_the_question_is_part_of_the_key(world: World) -> None:
    """Two questions about one clip are two prompts."""
    from dataclasses import replace

    encoder = world.encoder(world.model())
    record = world.records("video")[0]
    assert encoder(record).ids != encoder(replace(record, question="what is it ?")).ids
    assert encoder.misses == 2


def test_blank_media_keep_their_place(world: World) -> None:
    encoder = world.encoder(world.model())
    record = world.records("audio_video")[0]
    (ref,) = record.media
    seen = encoder(record)
    blank = encoder(record.with_media((MediaRef(ref.kind, ref.path, ref.sound, frozenset({"picture", "sound"})),)))
    assert blank.ids == seen.ids
    assert torch.equal(blank.positions, seen.positions)
    assert seen.pictures is not None
    assert blank.pictures is not None
    assert not torch.equal(blank.pictures, seen.pictures)
    assert float(blank.mels[0].std()) < float(seen.mels[0].std())


def test_a_vanished_clip_is_an_error_and_never_replaced(world: World) -> None:
    from dataclasses import replace

    record: Record = world.records("video")[0]
    gone = replace(record, media=(MediaRef("video", record.media[0].path + ".gone"),), modality=Modality.VIDEO)
    with pytest.raises(MediaError, match=r"\.gone"):
        world.encoder(world.model())(gone)


def test_frames_are_really_those_of_the_clip(world: World) -> None:
    """Patches of the encoded clip, put together again, are its decoded frames up to the processor's normalisation."""
    encoder = world.encoder(world.model())
    record = world.records("video")[0]
    frames = media.decode(record.media[0], encoder.shape.limits).frames
    assert frames is not None
    pictures = encoder(record).pictures
    assert pictures is not None
    assert pictures.shape == (2 * 4 * 4, 3 * 2 * 14 * 14)
    first = pictures[0].reshape(3, 2, 14, 14)[:, 0].numpy()
    corner = frames[0, :14, :14].transpose(2, 0, 1)
    for channel in range(3):
        assert np.corrcoef(first[channel].ravel(), corner[channel].ravel())[0, 1] > 0.999 or corner[channel].std() < 1


def test_what_is_forgotten_is_read_anew_by_every_thread(world: World) -> None:
    """A token that the tokenizer was taught meanwhile is one piece of a prompt, also where a thread has a processor of its own."""
    encoder = world.encoder(world.model())
    record = replace(world.records("video")[0], question="is it <POSE> ?", media=())
    with ThreadPoolExecutor(1) as thread:
        before = thread.submit(encoder, record).result()
        encoder.processor.tokenizer.add_tokens(["<POSE>"], special_tokens=True)
        assert encoder(record) is before
        encoder.forget()
        after = [thread.submit(encoder, record).result().ids]
        encoder.forget()
        after.append(encoder(record).ids)
    token = encoder.processor.tokenizer.convert_tokens_to_ids("<POSE>")
    assert [ids.count(token) for ids in (before.ids, *after)] == [0, 1, 1]

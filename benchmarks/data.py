"""What reading, decoding and checking data cost, each beside the plain way, in one run.

    python benchmarks/data.py [--rows 1000000] [--clips 2000] [--out runs/bench_data]

- rows: a HumanSense file of many rows, streamed and checked row by row, beside `json.load` of the whole file (which checks nothing);
- cache: the clips of one pass decoded, and the same pass from the cache on disk;
- doctor: `omnistage data check` over the rendered clips, the first and the second time.

Each measurement runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omnistage.data import formats, media, synth
from omnistage.data.media_cache import MediaCache
from omnistage.data.records import Modality

WORKERS = 2
LIMITS = media.MediaLimits(fps=2.0, max_frames=16)


def write_rows(path: Path, count: int) -> None:
    """A file of `count` rows over 1,000 names of clips (reading looks whether they are there, and into none of them)."""
    clips = path.parent / "named"
    clips.mkdir(parents=True, exist_ok=True)
    for index in range(1000):
        (clips / f"{index}.mp4").touch()
    pattern = "Multiple-choice question (select one answer choice)"
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            asked = {"task_type": "Action", "question_pattern": pattern, "question": f"What does person {index} do?"}
            asked |= {"options": ["A.walk", "B.run", "C.sit", "D.lie"], "answer": "ABCD"[index % 4]}
            file.write(("[" if index == 0 else ",\n") + json.dumps({"video_path": f"named/{index % 1000}.mp4", "questions": asked}))
        file.write("]")


def stream(path: Path) -> int:
    return sum(1 for _ in formats.read("humansense", path, modality=Modality.VIDEO))


def load_whole(path: Path) -> int:
    return len(json.loads(path.read_text(encoding="utf-8")))


def clips_of(folder: Path) -> list[Any]:
    path = folder / "train_audio_video.json"
    return [ref for record in formats.read("humansense", path, modality=Modality.AUDIO_VIDEO) for ref in record.media]


def decode_all(folder: Path) -> int:
    return sum(media.decode(ref, LIMITS).frames is not None for ref in clips_of(folder))


def decode_cached(folder: Path) -> int:
    cache = MediaCache(folder / "cache", max_bytes=4 * 2**30)
    return sum(cache.decode(ref, LIMITS).frames is not None for ref in clips_of(folder))


MEASURED: dict[str, Callable[[Path], int]] = {
    "stream": stream,
    "load_whole": load_whole,
    "decode_all": decode_all,
    "decode_cached": decode_cached,
}


def measured(name: str, path: Path) -> dict[str, float]:
    """Seconds, items and peak megabytes of one measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--measure", name, str(path)], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(name: str, path: Path) -> None:
    began = time.perf_counter()
    items = MEASURED[name](path)
    seconds = time.perf_counter() - began
    print(json.dumps({"items": items, "seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def doctor(folder: Path) -> float:
    files = [str(folder / "train_audio_video.json")]
    options = ["--format", "humansense", "--modality", "audio_video", "--workers", str(WORKERS), "--cache", str(folder / "checked")]
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "omnistage.launch", "data", "check", *files, *options], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the annotation file (1000000)")
    parser.add_argument("--clips", type=int, default=2000, help="rendered clips (2000)")
    parser.add_argument("--out", type=Path, default=Path("runs/bench_data"), help="folder of the data (runs/bench_data)")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure[0], Path(given.measure[1]))
        return
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)

    rows = out / "rows.json"
    write_rows(rows, given.rows)
    ours, plain = measured("stream", rows), measured("load_whole", rows)
    print(f"rows: {given.rows:,}, file of {rows.stat().st_size / 2**20:.0f} MB")
    print(f"  streamed and checked  {ours['items'] / ours['seconds']:>9,.0f} rows/s, peak {ours['mb']:>6,.0f} MB")
    print(f"  json.load             {plain['items'] / plain['seconds']:>9,.0f} rows/s, peak {plain['mb']:>6,.0f} MB, nothing checked")
    print(f"  memory: {plain['mb'] / ours['mb']:.1f} times less")

    clips = out / "clips"
    synth.render(clips, seed=5, cold_start=0, train=given.clips, held_out=0, wrong={}, workers=WORKERS)
    shutil.rmtree(clips / "cache", ignore_errors=True)
    plain, first, second = (measured(name, clips) for name in ("decode_all", "decode_cached", "decode_cached"))
    print(f"decoding {given.clips} clips of 2 s with their sound, one process")
    print(f"  without a cache {plain['seconds']:.1f} s; filling it {first['seconds']:.1f} s; from it {second['seconds']:.1f} s")
    print(f"  a hit is {plain['seconds'] / second['seconds']:.1f} times faster than decoding")

    shutil.rmtree(clips / "checked", ignore_errors=True)
    cold, warm = doctor(clips), doctor(clips)
    print(
        f"data check over {given.clips} clips, {WORKERS} workers: first {cold:.1f} s, second {warm:.1f} s, {cold / warm:.1f} times faster"
    )


if __name__ == "__main__":
    main()

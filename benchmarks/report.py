"""The report page of a run with a hundred thousand rollouts: how long it takes to build, how large it is, and when it answers in Chromium.

    python benchmarks/report.py [--run RUN] [--groups 12800] [--size 8] [--rounds 5] [--max-mb 20] [--json FILE]

Writes a run whose one GRPO stage has recorded 12,800 prompts with 8 completions each over 800 steps, with rendered clips, and builds its
page; or builds the page of `--run`. The page is then opened from disk, each round in two new contexts. Let alone: seconds from the start
of the navigation until it says that it is ready, and until the last task over 50 ms has ended, that which reads the charts' library for the
first chart among them: from then on nothing waits. Used: until a press of "next" in the moment in which it is ready is drawn, and what a
press by the mouse waits. CPU seconds are those of the page's own process until it is ready. Needs chromium and playwright.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chromium import chromium

from omnistage.data import synth
from omnistage.rewards import rollouts
from omnistage.stages import files
from omnistage.stages.report import page

STEPS = 800
CLIPS = 96
BUILD_LIMIT_S, READY_LIMIT_S = 120.0, 3.0
# Notes long tasks, when the page is ready, and when a press of "next" at that moment is drawn.
WATCH = """
window.seen = {tasks: []};
const noted = (list) => { for (const one of list.getEntries()) seen.tasks.push([one.startTime, one.duration]); };
new PerformanceObserver(noted).observe({entryTypes: ['longtask']});
new MutationObserver((_, observer) => {
  if (!document.documentElement?.dataset.ready) return;
  observer.disconnect();
  seen.ready = performance.now();
  setTimeout(press);
}).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ['data-ready']});
function press() {
  const [next, back] = ['next', 'previous'].map((way) => document.querySelector(`#rollout-${way}, #answer-${way}`));
  if (!next) return;
  (next.getAttribute('aria-disabled') === 'true' ? back : next).click();
  requestAnimationFrame(() => setTimeout(() => { seen.answered = performance.now(); }));
}
addEventListener('click', (event) => {
  if (event.isTrusted) requestAnimationFrame(() => setTimeout(() => { seen.waited = performance.now() - event.timeStamp; }));
}, true);
"""


def written(folder: Path, groups: int, size: int) -> Path:
    """A run of `groups` prompts: every 50th without spread, a third of them with a clip that was rendered."""
    data = folder / "run" / "data"
    synth.render(data, seed=1, cold_start=8, train=CLIPS, held_out=8, wrong={}, workers=1)
    clips = {m: sorted(str(path) for path in (data / "clips").glob(f"train_{m}_[0-9]*")) for m in ("video", "audio", "audio_video")}
    stage = {"name": "video", "kind": "grpo", "modality": "video", "data": [], "steps": STEPS}
    stage["rewards"] = [{"name": "accuracy", "weight": 1.0}, {"name": "format", "weight": 0.5}]
    files.write_json(
        folder / "run" / "run.json", {"recipe": {"run_dir": str(folder / "run"), "seed": 0, "stages": [stage]}, "versions": {}}
    )
    per_step = groups // STEPS
    for step in range(1, STEPS + 1):
        rows = [_row(clips, step, step * per_step + number, number, at) for number in range(per_step) for at in range(size)]
        rollouts.write(folder / "run" / "01-video" / "rollouts", step, rows)
    logged = [{"step": step, "reward": step / STEPS, "loss": 1 / step, "entropy": 1 - step / STEPS / 2} for step in range(1, STEPS + 1)]
    files.write_lines(folder / "run" / "01-video" / "metrics.jsonl", logged)
    # Measured, so that a chart stands at the top as in the page of a real run.
    measured = {"accuracy": 0.5, "n": 576, "low": 0.46, "high": 0.54}
    (folder / "run" / "01-video" / "evaluation").mkdir()
    all_items = {"value": 0.5, "low": 0.46, "high": 0.54, "n": 1728, "valid_n": 1728, "valid_value": 0.5, "unit": "share"}
    scores = {"headline": "all items", "items": 1728, "runs": {"greedy": {"counts": {"items": 1728}, "figures": {"all items": all_items}}}}
    files.write_json(folder / "run" / "01-video" / "evaluation" / "scores.json", scores | {"baseline": None, "notes": [], "probes": {}})
    done = {"name": "video", "kind": "grpo", "modality": "video", "stale": False, "modalities": dict.fromkeys(clips, measured)}
    files.write_json(folder / "run" / "summary.json", {"stages": [done]})
    return folder / "run"


def _row(clips: dict[str, list[str]], step: int, prompt: int, group: int, at: int) -> dict[str, Any]:
    modality = ("video", "audio", "audio_video")[prompt % 3]
    right = 0.0 if prompt % 50 == 0 else float((at + step) % 2)
    said = f"<think>it moves {('left', 'right')[at % 2]} in prompt {prompt}, as frame {at} says</think><answer>{'AB'[at % 2]}</answer>"
    return {
        "record_id": f"train_{prompt % 997:05d}",
        "group": group,
        "target": "A",
        "solution": "A",
        "kind": "single_choice",
        "values": [],
        "options": ["left", "right"],
        "task": ("direction", "colour", "count")[prompt % 3],
        "modality": modality,
        "media": [clips[modality][prompt % len(clips[modality])]],
        "question": "which way does it move ?",
        "messages": "[]",
        "evidence": {"sight": [], "sound": []},
        "prompt": "which way does it move ? A left B right",
        "completion": said,
        "completion_ids": list(range(24)),
        "advantage": right - 0.5,
        "reward/accuracy": right,
        "reward/format": 1.0,
    }


def built(run: Path, out: Path, max_mb: float) -> dict[str, Any]:
    """What the page of a run takes."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    made = page.write(run, out, max_mb=max_mb, with_plan=False)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": time.monotonic() - began, "cpu_s": cpu, "mb": made["bytes"] / 1e6, "told": made["told"]}


def let_alone(browser: Any, path: Path) -> dict[str, float]:
    """One opening of a page that nobody touches."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True)
    try:
        shown = context.new_page()
        shown.add_init_script(WATCH.replace("setTimeout(press)", ""))
        shown.goto(path.resolve().as_uri(), wait_until="commit")
        shown.wait_for_selector("html[data-ready]")
        if shown.locator("figure.chart").count():
            shown.wait_for_selector("figure.chart[data-drawn]")
        shown.wait_for_timeout(2000)
        seen = shown.evaluate("seen")
    finally:
        context.close()
    last = max([seen["ready"], *(began + took for began, took in seen["tasks"])])
    return {"settled_s": last / 1000, "longest_s": max((took for _, took in seen["tasks"]), default=0.0) / 1000}


def used(browser: Any, path: Path) -> dict[str, float]:
    """One opening of a page in which "next" is pressed."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True)
    try:
        shown = context.new_page()
        shown.add_init_script(WATCH)
        before = _cpu_s(browser)
        shown.goto(path.resolve().as_uri(), wait_until="commit")
        shown.wait_for_selector("html[data-ready]")
        cpu = _cpu_s(browser) - before
        shown.mouse.move(10, 10)
        button = shown.locator("#rollout-next[aria-disabled=false], #rollout-previous[aria-disabled=false]").first
        if button.count():
            button.scroll_into_view_if_needed()
            button.click()
        shown.wait_for_timeout(1500)
        seen = shown.evaluate("seen")
    finally:
        context.close()
    return {
        "ready_s": seen["ready"] / 1000,
        "answered_s": seen.get("answered", float("nan")) / 1000,
        "click_s": seen.get("waited", float("nan")) / 1000,
        "cpu_s": cpu,
    }


def _cpu_s(browser: Any) -> float:
    """CPU seconds of the browser's pages so far."""
    session = browser.new_browser_cdp_session()
    found = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return float(sum(process["cpuTime"] for process in found if process["type"] == "renderer"))


def measured(path: Path, rounds: int) -> list[dict[str, float]]:
    with chromium() as browser:
        return [let_alone(browser, path) | used(browser, path) for _ in range(rounds)]


NAMES = {
    "ready_s": "ready",
    "settled_s": "let alone, the last long task has ended",
    "longest_s": "the longest task",
    "answered_s": "a press of next at that moment is drawn",
    "click_s": "a press by the mouse waits",
    "cpu_s": "CPU of the page until ready",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, help="the page of this run in place of a written one")
    parser.add_argument("--groups", type=int, default=12800, help="recorded prompts (12800)")
    parser.add_argument("--size", type=int, default=8, help="completions of each (8)")
    parser.add_argument("--rounds", type=int, default=5, help="openings (5)")
    parser.add_argument("--max-mb", type=float, default=page.MAX_MB, help="size of the page (20)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        run = arguments.run or written(Path(name), arguments.groups, arguments.size)
        build = built(run, Path(name) / "page.html", arguments.max_mb)
        rounds = measured(Path(name) / "page.html", arguments.rounds)
    what = str(run) if arguments.run else f"{arguments.groups * arguments.size:,} rollouts"
    print(f"{what}; load {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    print(f"built in {build['wall_s']:.1f} s ({build['cpu_s']:.1f} s CPU), {build['mb']:.1f} MB: {build['told']}")
    middle = {key: statistics.median(one[key] for one in rounds) for key in NAMES}
    for key, told in NAMES.items():
        print(f"  {told:42} {middle[key]:6.2f} s   rounds {', '.join(f'{one[key]:.2f}' for one in rounds)}")
    kept = build["wall_s"] < BUILD_LIMIT_S and max(middle["settled_s"], middle["answered_s"]) < READY_LIMIT_S
    print(f"limits ({BUILD_LIMIT_S:g} s to build, {READY_LIMIT_S:g} s until it answers at once): {'kept' if kept else 'NOT KEPT'}")
    if arguments.json:
        files.write_json(
            Path(arguments.json), {"what": what, "load": load, "build": build, "rounds": rounds, "median": middle, "kept": kept}
        )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

"""The README's picture: the player of a run's report page in Chromium, 1280 × 800, light.

    python benchmarks/picture.py RUN [OUT.png]

Shows the prompt of the run with a moving picture whose completions differ most in what they are worth, the latest of those that are alike.
Needs chromium and playwright.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from chromium import chromium
from PIL import Image

from omnistage.stages.report import page

WIDTH, HEIGHT = 1280, 800
MOST_BYTES = 250_000
COLOURS = (256, 128, 64)
# Of the prompts in the page with a clip to look at: the one to show, as its place among all.
CHOICE = """() => {
  const part = (id) => { const found = document.querySelector(`script#${id}`); return found && JSON.parse(found.textContent); };
  const worth = (group) => {
    const totals = group.completions.map((one) => one.total).filter((one) => typeof one === 'number');
    const clip = group.clips.length ? part(`clip-${group.clips[0]}`) : null;
    if (!totals.length || !clip || !clip.video) return -1;
    const mean = totals.reduce((sum, one) => sum + one, 0) / totals.length;
    return totals.reduce((sum, one) => sum + (one - mean) ** 2, 0) / totals.length;
  };
  let best = 0, most = -1;
  part('data').groups.forEach((_, at) => {
    const found = worth(part(`group-${at}`)); if (found > most - 1e-9) { best = at; most = found; }
  });
  return best;
}"""


def taken(path: Path) -> bytes:
    """A PNG of the page's player."""
    with chromium() as browser:
        size: Any = {"width": WIDTH, "height": HEIGHT}
        shown = browser.new_page(viewport=size, color_scheme="light", reduced_motion="reduce")
        shown.goto(path.resolve().as_uri())
        shown.wait_for_selector("html[data-ready]")
        best = shown.evaluate(CHOICE)
        shown.locator("#rollout-slider").evaluate(
            "(slider, at) => { slider.value = at + 1; slider.dispatchEvent(new Event('input')); }", best
        )
        # The picture in the middle of the clip, when most have begun to move.
        shown.locator("#rollout video").evaluate(
            "async (video) => { await new Promise((done) => { video.onseeked = done; video.currentTime = video.duration / 2; }); }"
        )
        shown.locator("#rollouts .walk").evaluate("one => scrollTo(0, one.getBoundingClientRect().top + scrollY - 20)")
        shown.wait_for_timeout(1500)
        found: bytes = shown.screenshot()
    return found


def small(png: bytes) -> bytes:
    """The same with as few colours as it needs to stay below the limit."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in COLOURS:
        out = io.BytesIO()
        image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if len(out.getvalue()) <= MOST_BYTES:
            return out.getvalue()
    raise SystemExit(f"the picture is larger than {MOST_BYTES:,} bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="a finished run (make demo: runs/demo)")
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/figures/report.png"), help="docs/figures/report.png")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "report.html"
        page.write(arguments.run, path, with_plan=False)
        content = small(taken(path))
    arguments.out.write_bytes(content)
    print(f"{arguments.out}: {len(content) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

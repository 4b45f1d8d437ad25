// A clip: what plays, the frames that the model was shown, and the wave of what it heard.
function clipView(number) {
  const clip = part(`clip-${number}`);
  if (!clip) return missing("this clip is not in the page");
  if (clip.later) return laterClip(number, clip);
  const name = el("p", { class: "clip-name" }, said(clip.name));
  if (clip.error) return el("div", { class: "clip" }, name, missing(["the clip cannot be shown: ", said(clip.error)]));
  const parts = [];
  const source = clip.video || clip.sound || clip.link;
  if (source && clip.kind !== "image") {
    const tag = clip.kind === "audio" ? "audio" : "video";
    const player = el(tag, { controls: true, preload: "metadata", src: source, class: "player", style: clip.shown ? `aspect-ratio:${clip.shown.width}/${clip.shown.height};--ratio:${clip.shown.width / clip.shown.height}` : null, playsinline: tag === "video", loop: tag === "video", "aria-label": `${tag === "audio" ? "Sound" : "Video"} of ${plain(clip.name)}` });
    player.addEventListener("error", () => player.replaceWith(missing("the clip's own file cannot be played here; its frames are below")));
    parts.push(player);
    if (!clip.video && !clip.sound) parts.push(el("p", { class: "hint" }, "played from its own file beside this page, there was no room for it"));
  }
  if (clip.strip) parts.push(strip(clip));
  if (clip.wave) parts.push(wave(clip));
  if (!parts.length) parts.push(missing("there was no room for this clip (--max-mb)"));
  return el("div", { class: "clip" }, parts, name);
}
function strip(clip) {
  const { frames, of, width, height, times } = clip.shown;
  const told = clip.kind === "image" ? "the picture as the model is shown it" : `${frames === of ? `the ${of} frames` : `${frames} of the ${of} frames`} that the model is shown`;
  const cells = Array.from({ length: frames }, (_, at) => el("figure", { class: "frame" },
    el("div", { class: width < 100 ? "still coarse" : "still", style: `background-image:url(${clip.strip});background-size:${100 * frames}% 100%;background-position:${frames > 1 ? (100 * at) / (frames - 1) : 0}% 0;aspect-ratio:${width}/${height}` }),
    times ? el("figcaption", {}, `${times[at].toFixed(1)} s`) : null));
  return el("div", {}, el("p", { class: "label" }, told), el("div", { class: clip.kind === "image" ? "strip one" : "strip", role: "img", "aria-label": told }, cells));
}
function wave(clip) {
  const points = clip.wave, width = points.length * 3, height = 48;
  const bars = points.map((peak, at) => { const half = Math.max(0.7, (peak * (height - 4)) / 2); return `M${at * 3 + 1.5} ${height / 2 - half}V${height / 2 + half}`; }).join("");
  return el("div", {}, el("p", { class: "label" }, `what the model hears: ${clip.seconds.toFixed(1)} s`),
    el("svg", { class: "wave", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `Wave of ${clip.seconds.toFixed(1)} seconds of sound` }, el("path", { d: bars })));
}

/** A model's text with its thinking and its answer marked. */
function answerText(parts) {
  if (!parts.length) return el("p", { class: "said none" }, "nothing was said");
  const long = parts.reduce((sum, one) => sum + one.text.length, 0) > 500;
  return el("div", { class: "said", tabindex: long ? "0" : null, role: long ? "region" : null, "aria-label": long ? "what the model said" : null }, parts.map((one) => {
    const marked = one.kind === "think" || one.kind === "answer";
    // The tags of a part that is marked stand in its head.
    if (one.kind === "tag") return parts.some((other, at) => (other.kind === "think" || other.kind === "answer") && (parts[at - 1] === one || parts[at + 1] === one)) ? null : el("span", { class: "tag" }, one.text);
    if (!marked && !one.text.trim() && !one.cut) return null;
    const text = [said(one.text), one.cut ? el("span", { class: "more" }, ` … ${count(one.cut)} more characters … `) : null, one.end ? said(one.end) : null];
    if (one.kind === "think") return el("span", { class: "think" }, el("span", { class: "part-name" }, "thinking", el("span", { class: "tag" }, "<think>")), text);
    if (one.kind === "answer") return el("span", { class: "answer" }, el("span", { class: "part-name" }, "answer", el("span", { class: "tag" }, "<answer>")), text);
    return el("span", { class: "loose" }, text);
  }));
}
function question(sample) {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const right = new Set(sample.options.length ? String(sample.target).split(",").map((one) => one.trim()) : []);
  return el("div", { class: "question" }, el("p", { class: "asked" }, said(sample.question)),
    sample.options.length ? el("ul", { class: "options" }, sample.options.map((option, at) => {
      const gold = right.has(letters[at]);
      return el("li", { class: gold ? "gold" : null }, el("span", { class: "letter" }, letters[at] || String(at + 1)), said(option), gold ? el("span", { class: "gold-mark" }, "✓ right") : null);
    })) : null,
    el("p", { class: "target" }, "right answer: ", el("strong", {}, said(sample.target))));
}

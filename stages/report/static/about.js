// Data of the run, throughput and memory, and what this page is.
function dataSection(data) {
  const stages = Object.entries(data.data);
  const lead = "What each stage drew of its sources, and the rows that were left out.";
  if (!stages.length) return section("sources", "Data", lead, notes(data, "data") || missing("no stage has noted its sources yet"));
  const left = (source) => Object.entries(source.left_out || {}).filter(([, value]) => value);
  const rows = stages.flatMap(([name, found]) => found.sources.map((source) => [said(name), said(source.path.split("/").slice(-2).join("/")), count(source.records), left(source).length ? said(left(source).map(([why, value]) => `${value} by ${why}`).join(", ")) : "none"]));
  const quarantines = stages.flatMap(([, found]) => found.quarantines).filter((one, at, all) => all.findIndex((other) => other.path === one.path) === at);
  const listed = quarantines.map((one) => el("div", { class: "block" }, el("h3", {}, "Quarantine ", said(one.path.split("/").at(-1))),
    one.rows === null ? missing("cannot be read now") : [el("p", {}, `${count(one.rows)} rows; by reason: `, said(Object.entries(one.codes).map(([code, n]) => `${code} ${n}`).join(", "))),
      table("The first rows that were left out", ["record", "where", "why"], one.examples.map((row) => [said(row.id ?? "no record"), said(row.source), said(row.reason)]))]));
  return section("sources", "Data", lead, table("Sources by stage", ["stage", "file", "records drawn from", "left out"], rows),
    quarantines.length ? listed : missing("no quarantine was used; omnistage data check FILE --quarantine FILE finds clips and rows that are broken"), notes(data, "data"));
}

function throughput(data) {
  const planned = Object.fromEntries(((data.plan && data.plan.stages) || []).map((stage) => [stage.name, stage]));
  const median = (values) => { const known_ = (values || []).filter(known).sort((a, b) => a - b); return known_.length ? known_[Math.floor(known_.length / 2)] : null; };
  const rows = data.stages.filter((stage) => stage.kind !== "evaluate").map((stage) => {
    const columns = stage.metrics.columns, plan = planned[stage.name];
    const step = median(columns.step_seconds || columns.step_time), peak = (columns.peak_memory_mb || []).filter(known);
    return [said(stage.name), count(stage.steps), duration(stage.seconds.train_s), step === null ? (stage.seconds.train_s && stage.steps ? `${duration(stage.seconds.train_s / stage.steps)} (mean)` : "not recorded") : duration(step),
      plan ? duration(plan.time.step_s) : "–", peak.length ? bytes(1e6 * Math.max(...peak)) : "not recorded", plan ? bytes(plan.memory[plan.engine].peak) : "–"];
  });
  const gpu = data.plan ? `The plan reckons with a GPU of ${bytes(data.plan.gpu_bytes)} by formulas; ${data.run.device ? `this run was on ${plain(data.run.device.name)}.` : "what this run was on is not recorded."}` : "";
  return section("throughput", "Time and memory", "What the run took, beside what omnistage plan reckons for the same recipe.",
    rows.length ? table("Time and memory by stage", ["stage", "steps", "training", "a step (median)", "a step, planned", "peak memory", "peak, planned"], rows) : missing("no stage has begun"), gpu ? el("p", { class: "hint" }, gpu) : null, notes(data, "throughput"));
}

function about(data) {
  const clips = data.shown.clips, made = data.made;
  return section("about", "About this page", null, el("ul", { class: "plain" },
    el("li", {}, `Made by omnistage ${plain(made.version)} on ${plain(made.at)} from the run's directory. ${made.live ? "It comes from omnistage watch on the machine of the run, which reads and never writes; clips are fetched from it as they are looked at." : "Nothing in it is fetched from elsewhere, and nothing is sent."}`),
    el("li", {}, `It holds ${count(data.shown.groups)} of ${count(data.shown.groups_of)} prompts with their completions and ${count(data.shown.items)} of ${count(data.shown.items_of)} held-out items. Of their ${count(clips.of)} clips ${count(clips.played)} can be played, ${count(clips.still)} are frames or a wave alone, ${count(clips.linked)} are played from their own files beside the page, and ${count(clips.missing)} could not be read. Where --max-mb is reached, clips are left out until they have two fifths of the room for samples, and then samples.`),
    el("li", {}, "Whoever has this page has these texts, frames and sounds, the recipe with its paths, and the names of the files: share it as you would share the data."),
    el("li", {}, "Texts longer than a page can hold are cut, with the number of characters that are left out. Characters that cannot be seen stand as U+ and their number."),
    el("li", {}, "Charts: plotly.js, © Plotly, Inc., MIT licence.")));
}

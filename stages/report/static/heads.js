// Heads: numbers predicted beside true ones, and poses drawn.
function heads(data) {
  const stages = Object.entries(data.heads);
  if (!stages.length) return data.stages.some((stage) => stage.kind === "head") ? section("heads", "Heads", null, notes(data, "heads") || missing("no head has been measured yet")) : null;
  return section("heads", "Heads", "What the heads put out for held-out records, beside what is true.", stages.map(([name, found]) => headStage(name, found)), notes(data, "heads"));
}

function headStage(name, found) {
  const box = el("div", { class: "block" }, el("h3", {}, "Head ", said(found.scores.head), " after ", said(name)));
  const real = found.points.filter((one) => !one.control);
  const scatter = real.map((one) => scatterChart(name, one, found.points.filter((other) => other.control && other.task === one.task && other.name === one.name), found.scores.tasks[one.task]));
  const figures = headTable(found.scores);
  box.append(scatter.length ? el("div", { class: "grid big" }, scatter, figures) : figures);
  if (found.poses.shown.length) box.append(poses(name, found));
  return box;
}

function scatterChart(stage, one, controls, entry) {
  const figure = entry && entry[one.name];
  const values = [...one.true, ...one.made], low = Math.min(...values), high = Math.max(...values);
  const told = figure ? ["srcc", "plcc", "rmse"].filter((metric) => figure[metric]).map((metric) => `${metric.toUpperCase()} ${metric === "rmse" ? short(figure[metric].value) : fixed(figure[metric].value, 3)} [${metric === "rmse" ? short(figure[metric].low) : fixed(figure[metric].low, 3)}, ${metric === "rmse" ? short(figure[metric].high) : fixed(figure[metric].high, 3)}]`).join(" · ") : "";
  const trace = (given, at) => ({ name: given.control || "real media", column: given.control || "real", at, tone: given.control ? null : "--accent", mode: "points", x: given.true, y: given.made, ids: given.ids });
  return chart({ id: `heads/${stage}/${one.task}/${one.name}`, title: `${plain(one.task)}: ${plain(one.name)}`, unit: told, height: 380, smooth: false, x: { title: "true", kind: "number" }, y: { title: "predicted" },
    lines: [{ x0: low, x1: high, y0: low, y1: high }], traces: [trace(one, 0), ...controls.map((given, at) => trace(given, at + 1))],
    hint: `${one.ids.length === one.of ? `All ${count(one.of)}` : `${count(one.ids.length)} of ${count(one.of)}, evenly spread over the true values,`} held-out records; on the dotted line a prediction is right.` });
}

function headTable(scores) {
  const flat = (entry) => Object.entries(entry).flatMap(([name, value]) => (value && typeof value === "object" ? (known(value.value) ? [[name, value]] : Object.entries(value).map(([metric, figure]) => [`${name} ${metric}`, figure])) : []));
  const controls = Object.keys(scores.controls || {});
  const posed = Object.values(scores.tasks).some((entry) => flat(entry).some(([, figure]) => known(figure.mean_pose)));
  const rows = Object.entries(scores.tasks).flatMap(([task, entry]) => flat(entry).map(([name, figure]) => [
    el("span", {}, said(task), ": ", headFigure(name)), count(entry.n), `${short(figure.value)} [${short(figure.low)}, ${short(figure.high)}]`, ...(posed ? [known(figure.mean_pose) ? short(figure.mean_pose) : "–"] : []),
    ...controls.map((control) => { const other = scores.controls[control][task]; const value = other && Object.fromEntries(flat(other))[name]; return value ? short(value.value) : "–"; })]));
  return table(`Figures of head ${plain(scores.head)} on held-out records, with 95 % intervals over clips`, ["figure", "n", "value", ...(posed ? ["the mean pose"] : []), ...controls.map((name) => said(name))], rows);
}

const FIGURES = { mpjpe_mm: "MPJPE, mm", pa_mpjpe_mm: "PA-MPJPE, mm", geodesic_deg: "angle, degrees" };
const headFigure = (name) => FIGURES[name] || said(name.replace(/ (srcc|plcc|krcc|rmse|mae)$/, (found) => found.toUpperCase()));

function poses(stage, found) {
  const body = found.skeleton, shown = found.poses.shown;
  const drawn = [];
  const angle = el("input", { type: "range", id: `turn-${stage}`, min: "-180", max: "180", step: "5", value: "25", oninput: () => { for (const one of drawn) one(Number(angle.value)); } });
  const card = (pose) => {
    const joints = [pose.true, pose.made].flatMap((place) => place.map(([x, y, z]) => Math.hypot(x, z)));
    const tall = Math.max(...[pose.true, pose.made].map((place) => Math.max(...place.map((p) => p[1])) - Math.min(...place.map((p) => p[1]))));
    const reach = Math.max(tall / 2, ...joints) * 1.08;
    const make = (place, label) => {
      const picture = el("svg", { viewBox: `${-reach} ${-reach} ${2 * reach} ${2 * reach}`, role: "img", "aria-label": `${label} pose of ${plain(pose.id)}` });
      const turn = (degrees) => drawPose(picture, place, body, reach, degrees);
      drawn.push(turn);
      turn(25);
      return el("figure", { class: "pose" }, picture, el("figcaption", {}, label));
    };
    return el("li", { class: "pose-card" }, el("div", { class: "pose-pair" }, make(pose.true, "true"), make(pose.made, "predicted")),
      el("p", { class: "card-note" }, said(pose.task), ` · MPJPE ${pose.mpjpe_mm.toFixed(0)} mm · ${count(pose.rank)}${ordinal(pose.rank)} nearest of ${count(pose.of)}`));
  };
  const cards = shown.map(card);
  return el("div", {}, el("h4", { class: "group" }, "Poses, predicted beside true"), el("div", { class: "field some" }, el("label", { for: `turn-${stage}` }, "Turn all bodies"), angle),
    el("p", { class: "hint" }, `${count(shown.length)} of ${count(found.poses.of)}, of each task evenly spread from the nearest to the farthest. Blue: the body's left; red: its right. Drawn with the lengths of our own body.${found.poses.in_camera ? " The poses are in the frame of a camera (y down), and are stood upright here." : ""}`), el("ol", { class: "poses" }, cards));
}
function ordinal(n) { return n % 100 > 10 && n % 100 < 14 ? "th" : ["th", "st", "nd", "rd"][n % 10] || "th"; }
function drawPose(picture, place, body, reach, degrees) {
  const turn = (degrees * Math.PI) / 180, sine = Math.sin(turn), cosine = Math.cos(turn);
  const middle = (Math.max(...place.map((p) => p[1])) + Math.min(...place.map((p) => p[1]))) / 2;
  const seen = place.map(([x, y, z]) => [cosine * x - sine * z, middle - y, sine * x + cosine * z]);
  const limbs = seen.map((at, joint) => ({ joint, depth: body.parents[joint] < 0 ? at[2] : (at[2] + seen[body.parents[joint]][2]) / 2 })).sort((a, b) => a.depth - b.depth);
  picture.replaceChildren(el("line", { x1: -reach * 0.5, x2: reach * 0.5, y1: reach * 0.94, y2: reach * 0.94, class: "floor", "stroke-width": reach * 0.01 }), ...limbs.flatMap(({ joint }) => {
    const [x, y] = seen[joint], parent = body.parents[joint], stroke = body.colours[joint];
    return [parent < 0 ? null : el("line", { x1: seen[parent][0], y1: seen[parent][1], x2: x, y2: y, stroke, "stroke-width": reach * 0.052, "stroke-linecap": "round" }), el("circle", { cx: x, cy: y, r: reach * (body.names[joint] === "Head" ? 0.075 : 0.028), fill: stroke })];
  }).filter(Boolean));
}

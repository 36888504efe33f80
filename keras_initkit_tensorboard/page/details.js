// What stands beside the heat map: findings, a layer, a step.

import {drawHistogram, drawLines} from "./charts.js";
import {columnOf} from "./data.js";
import {addressOf, make} from "./dom.js";
import {directionOf, explain, kindOf, say, titleOf} from "./scales.js";

const GROUPS = [
  ["Forward", ["activation_variance", "pre_activation_variance", "activation_mean", "pre_activation_mean"]],
  ["Backward", ["activation_gradient_variance", "pre_activation_gradient_variance"]],
  ["Units", ["dead_units", "saturated_units", "saturated"]],
  ["Weights and updates", ["update_ratio", "weight_variance", "weight_gradient_variance", "weight_update_variance"]],
];
const GRAVITY = ["error", "warning", "info"];

// Where a finding is seen; of others the statistic that is shown stays.
const SEEN_IN = [[/gradient/, "activation_gradient_variance"], [/(exploding|vanishing)_activation/, "activation_variance"], [/^update_/, "update_ratio"]];

/** Findings of the shown runs, the gravest first; each links to its layer and step. */
export function showFindings(place, runs) {
  const items = [];
  for (const {run, record, statistics} of runs) {
    const findings = [...(record?.findings ?? [])].sort((one, other) => GRAVITY.indexOf(one.severity) - GRAVITY.indexOf(other.severity));
    for (const finding of findings) {
      const statistic = statistics.find((name) => name === finding.kind) ?? SEEN_IN.find(([pattern, name]) => pattern.test(finding.kind) && statistics.includes(name))?.[1];
      const link = make("a", {href: addressOf({run, statistic, layer: finding.layer, step: finding.step})}, `${finding.kind} in ${finding.layer} at step ${finding.step}`);
      const evidence = Object.entries(finding.evidence).map(([name, value]) => make("tr", {}, make("th", {scope: "row"}, titleOf(name)), make("td", {}, typeof value === "number" ? say(value) : String(value))));
      items.push(make("li", {class: `finding ${finding.severity}`, "data-layer": finding.layer},
        make("p", {class: "head"}, make("b", {}, finding.severity), " ", link, runs.length > 1 && make("small", {}, ` ${run}`)),
        finding.message && make("p", {}, finding.message),
        finding.consequence_of && make("p", {class: "dim"}, `Follows from ${finding.consequence_of}${finding.caused_in ? ` in ${finding.caused_in}` : ""}.`),
        make("details", {},
          make("summary", {}, "Evidence and remedy"),
          make("table", {}, make("tbody", {}, ...evidence)),
          make("pre", {}, finding.remedy))));
    }
  }
  const hasRecord = runs.some(({record}) => record?.findings);
  const none = hasRecord ? "Nothing was found." : "This log holds no findings for this tab.";
  place.replaceChildren(make("h2", {}, `Findings${items.length ? ` (${items.length})` : ""}`), items.length ? make("ul", {}, ...items) : make("p", {class: "dim"}, none));
}

/** Marks and opens the findings of a layer. */
export function markFindings(place, layer) {
  for (const item of place.querySelectorAll("li")) {
    const isCurrent = item.dataset.layer === layer;
    if (isCurrent === item.hasAttribute("aria-current")) continue;
    item.querySelector("details").open = isCurrent;
    if (isCurrent) item.setAttribute("aria-current", "true");
    else item.removeAttribute("aria-current");
  }
  place.querySelector("[aria-current]")?.scrollIntoView({block: "nearest"});
}

/** One layer of the shown runs: what the cell means, its lines over steps, histograms. */
export function showLayer(place, {layer, block, step, panels, answers, theme, pick}) {
  const name = layer ?? block;
  if (name === undefined) {
    place.replaceChildren(make("h2", {}, "Layer"), make("p", {class: "dim"}, "Click a cell. Keys in the map: arrows, Enter folds a block, f all blocks, + and - zoom, 0 shows all, / searches."));
    return;
  }
  const type = panels.map(({record}) => record?.layers.find(([each]) => each === layer)?.[1]).find(Boolean);
  const parts = [make("h2", {}, layer ? "Layer " : "Block ", make("code", {class: "name"}, name), type && make("small", {}, ` ${type}`))];
  const colors = new Map(answers.map(({run}, i) => [run, theme.lines[i]])); // none of a difference
  for (const {run, matrix, measured} of panels) {
    const row = matrix.rowOf.get(name);
    if (row === undefined) continue;
    const column = columnOf(matrix.steps, step ?? Infinity);
    const text = `${titleOf(matrix.statistic)} at step ${matrix.steps[column]}: ${explain(measured, matrix, row, column)}`;
    parts.push(make("p", {class: "cell"}, panels.length > 1 && swatch(colors.get(run)), panels.length > 1 ? `${run}: ${text}` : text));
  }
  place.replaceChildren(...parts);
  if (!layer) return;
  for (const [title, names] of GROUPS) {
    for (const statistic of names) {
      const lines = answers.map(({answer}, i) => ({points: answer?.statistics[statistic], color: theme.lines[i]})).filter(({points}) => points);
      if (!lines.length) continue;
      const isLog = ["signal", "drift", "ratio"].includes(kindOf(statistic));
      place.append(figure(`${title}: ${titleOf(statistic)}`, theme, (canvas) => drawLines(canvas, theme, lines, {isLog, marked: step, unit: "step "}), (x) => pick({step: Math.round(x)})));
    }
  }
  for (const [i, {run, answer}] of answers.entries()) {
    for (const [kind, series] of Object.entries(answer?.histograms ?? {})) {
      const [at, buckets] = series[columnOf(series.map(([each]) => each), step ?? Infinity)];
      const where = answers.length > 1 ? `, ${run}` : "";
      place.append(figure(`Histogram of the ${titleOf(kind)} at step ${at}${where}`, theme, (canvas) => drawHistogram(canvas, theme, buckets, theme.lines[i])));
    }
  }
  const others = answers.flatMap(({answer}) => Object.entries(answer?.statistics ?? {}))
    .filter(([statistic]) => !GROUPS.some(([, names]) => names.includes(statistic)))
    .map(([statistic, points]) => `${titleOf(statistic)} ${say(points[columnOf(points.map(([each]) => each), step ?? Infinity)][1] ?? Infinity)}`);
  if (others.length) place.append(make("p", {class: "dim"}, others.join(" · ")));
}

/** One step: the statistic over depth, beside what theory predicted for the untrained model. */
export function showProfile(place, {step, panels, statistic, theme, pick}) {
  const head = make("h2", {}, "Profile over depth");
  if (!panels.length) return place.replaceChildren(head);
  const isLog = ["signal", "drift", "ratio"].includes(kindOf(statistic)), lines = [], texts = [];
  const layers = panels[0].matrix.layers;
  for (const [i, {run, matrix, record}] of panels.entries()) {
    const column = columnOf(matrix.steps, step ?? Infinity);
    const valueOf = (layer) => {
      const row = matrix.rowOf.get(layer), value = row === undefined ? NaN : matrix.values[row * matrix.width + column];
      return Number.isFinite(value) ? value : null;
    };
    const points = layers.map((layer, depth) => [depth, valueOf(layer)]);
    lines.push({points, color: theme.lines[i]});
    const known = points.filter(([, value]) => value !== null).sort(([, one], [, other]) => one - other);
    const ends = known.length ? `smallest ${say(known[0][1])} (${layers[known[0][0]]}), largest ${say(known[known.length - 1][1])} (${layers[known[known.length - 1][0]]})` : "nothing that can be drawn";
    texts.push(make("p", {class: "dim"}, panels.length > 1 && swatch(theme.lines[i]), `${panels.length > 1 ? `${run}, ` : ""}step ${matrix.steps[column]}: ${ends}`));
    const theory = record?.theory?.[statistic];
    if (theory) {
      const byLayer = new Map(record.layers.map(([layer], place) => [layer, theory[place]]));
      lines.push({points: layers.map((layer, depth) => [depth, byLayer.get(layer) ?? null]), color: theme.dim, isDashed: true});
      texts.push(make("p", {class: "dim"}, "Dashed: theory, for the model as initialized."));
    }
  }
  place.replaceChildren(head, figure(`${titleOf(statistic)}, first layer to last`, theme,
    (canvas) => drawLines(canvas, theme, lines, {isLog, unit: "layer "}),
    (x) => pick({layer: layers[Math.max(0, Math.min(layers.length - 1, Math.round(x)))], block: undefined})), ...texts);
}

function figure(title, theme, draw, pickAt) {
  const canvas = make("canvas", {role: "img", "aria-label": title, class: pickAt ? "chart pickable" : "chart"});
  requestAnimationFrame(() => {
    if (!canvas.isConnected) return;
    const toX = draw(canvas);
    if (pickAt) canvas.onclick = (event) => pickAt(toX(event.offsetX));
  });
  return make("figure", {}, make("figcaption", {}, title), canvas);
}

/** The color of a run's lines. */
function swatch(color) {
  const mark = make("i", {class: "swatch"});
  mark.style.background = color ?? "none";
  return mark;
}

/** The scale of the colors, in words. */
export function describeScale(measured, matrix) {
  const {kind, isDifference, range} = measured;
  if (isDifference) return {fraction: ["-100", "equal", "+100 percentage points"], plain: ["less", "equal", "more"], count: ["", "equal", ""]}[kind] ?? [`-${range}`, "equal (within 1)", `+${range} decades, first run minus second`];
  if (kind === "signal") {
    const entries = new Set(measured.entries.filter(Boolean).map(([entry]) => entry));
    const where = entries.size === 1 ? [...entries][0] : "where the signal enters";
    return [`-${range}`, "healthy", `+${range} decades from ${where}${directionOf(matrix.statistic) === "backward" ? ", backward" : ""}`];
  }
  if (kind === "fraction") return [null, "0 %", "100 %"];
  if (kind === "ratio") return [`-${range}`, "usual", `+${range} decades from 1e-3`];
  if (kind === "drift") return [`-${range}`, "as at first", `+${range} decades from the first value`];
  if (kind === "count") return [null, "none", null];
  return [null, say(measured.low), say(measured.high)];
}

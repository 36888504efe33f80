// What a value means: a level for each cell, in decades where the scale has them. Levels within the healthy band have no
// color; `range` is the end of the colors; infinity is a value that is 0 or not finite where it must not be, NaN none.

const RANGE = 6;

const DIRECTIONS = {
  activation_variance: "forward",
  pre_activation_variance: "forward",
  activation_gradient_variance: "backward",
  pre_activation_gradient_variance: "backward",
};
const FRACTIONS = new Set(["dead_units", "saturated_units", "saturated", "attention_future", "attention_padding"]);
const DRIFTS = new Set(["weight_variance", "weight_gradient_variance", "weight_update_variance"]);
const USUAL_RATIO = 1e-3;
const HEALTHY_FACTOR = 1e4; // of a log that does not say it

export function kindOf(statistic) {
  if (statistic in DIRECTIONS) return "signal";
  if (FRACTIONS.has(statistic)) return "fraction";
  if (DRIFTS.has(statistic)) return "drift";
  return {update_ratio: "ratio", nonfinite: "count"}[statistic] ?? "plain";
}

export const directionOf = (statistic) => DIRECTIONS[statistic];
export const titleOf = (statistic) => statistic.replaceAll("_", " ");

/** Levels of a matrix, their kind, and for signals the layer where each one's signal enters. */
export function measure(matrix, record) {
  const kind = kindOf(matrix.statistic);
  const {values, width, layers} = matrix;
  const levels = new Float32Array(values.length);
  const band = kind === "signal" ? Math.log10(record?.healthy_factor ?? HEALTHY_FACTOR) : kind === "fraction" || kind === "plain" ? 0 : 1;
  const result = {kind, levels, band, range: Math.max(RANGE, 2 * band), entries: null};
  if (kind === "signal") {
    result.entries = levelSignals(matrix, record, levels);
  } else if (kind === "fraction") {
    levels.forEach((_, i) => { levels[i] = values[i] * RANGE; });
  } else if (kind === "ratio") {
    levels.forEach((_, i) => { levels[i] = values[i] > 0 ? decades(values[i], USUAL_RATIO) : values[i] === 0 ? -RANGE : values[i]; });
  } else if (kind === "count") {
    levels.forEach((_, i) => { levels[i] = values[i] > 0 ? Infinity : values[i]; });
  } else if (kind === "drift") {
    for (let row = 0; row < layers.length; row++) {
      const cells = values.subarray(row * width, (row + 1) * width);
      const first = cells.find((value) => value > 0 && value < Infinity);
      for (let i = 0; i < width; i++) {
        const value = cells[i];
        // Weights that are all equal, such as a new bias, are no fault; a gradient of 0 is.
        const zero = matrix.statistic === "weight_variance" ? 0 : Infinity;
        levels[row * width + i] = value > 0 && value < Infinity ? decades(value, first) : value === 0 ? zero : value;
      }
    }
  } else {
    const [low, high] = extent(values);
    levels.forEach((_, i) => { levels[i] = high > low ? ((values[i] - low) / (high - low)) * RANGE : values[i] - low; });
    Object.assign(result, {low, high});
  }
  return result;
}

/** Difference of two measured statistics at the cells of the first, in the same units. */
export function subtract(matrix, one, otherMatrix, other, columnOf) {
  const levels = new Float32Array(one.levels.length).fill(NaN);
  const columns = matrix.steps.map((step) => columnOf(otherMatrix.steps, step));
  const span = Math.max(one.high ?? 0, other.high ?? 0) - Math.min(one.low ?? 0, other.low ?? 0) || 1;
  matrix.layers.forEach((layer, row) => {
    const otherRow = otherMatrix.rowOf.get(layer);
    if (otherRow === undefined) return;
    columns.forEach((column, i) => {
      const at = row * matrix.width + i, there = otherRow * otherMatrix.width + column;
      if (one.kind === "plain") levels[at] = ((matrix.values[at] - otherMatrix.values[there]) / span) * RANGE;
      else if (one.levels[at] === other.levels[there]) levels[at] = 0; // both infinite
      else levels[at] = Number.isNaN(one.levels[at]) || Number.isNaN(other.levels[there]) ? NaN : finite(one.levels[at] - other.levels[there]);
    });
  });
  return {...one, levels, band: one.band && 1, range: RANGE, isDifference: true};
}

const finite = (level) => (Number.isFinite(level) ? level : Infinity);
const decades = (value, from) => Math.log10(value) - Math.log10(from);

/** The rule of `report.healthy`; the record says where each layer's signal enters and what its size is to that there. */
function levelSignals(matrix, record, levels) {
  const {values, width, layers, rowOf, steps} = matrix;
  const isForward = directionOf(matrix.statistic) === "forward";
  const known = record?.signal?.[isForward ? "forward" : "backward"];
  const ways = new Map((record?.layers ?? []).map(([layer], i) => [layer, known?.[i]]));
  const first = isForward ? layers[0] : layers[layers.length - 1]; // in a log without a record
  const entries = layers.map((layer) => (known ? ways.get(layer) ?? null : [first, 0]));
  const isSignal = (value) => value > 0 && value < Infinity;
  const sources = [...new Set(entries.filter(Boolean).map(([entry]) => rowOf.get(entry)))].filter((row) => row !== undefined);
  // Backward a variance of 0 is no fault where no gradient enters, or where a kernel that is 0 on purpose keeps it.
  const isQuiet = steps.map((step, i) => !isForward && (record?.zero_gradient_steps?.includes(step) || sources.every((row) => values[row * width + i] === 0)));
  layers.forEach((_, row) => {
    const source = entries[row] ? rowOf.get(entries[row][0]) : undefined;
    for (let i = 0; i < width; i++) {
      const value = values[row * width + i], from = values[source * width + i];
      let level = NaN; // not logged or not judged
      if (value === Infinity) level = Infinity;
      else if (source !== undefined && !Number.isNaN(value) && !(value === 0 && isQuiet[i])) {
        level = isSignal(value) && isSignal(from) ? decades(value, from) + entries[row][1] : Infinity;
      }
      levels[row * width + i] = level;
    }
  });
  return entries;
}

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [0, 0];
}

/** A number as text. */
export function say(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "not logged";
  if (!Number.isFinite(value)) return "not finite";
  if (value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5)) return String(Number(value.toPrecision(3)));
  return value.toExponential(1);
}

/** What a cell's level means, in words. */
export function explain(measured, matrix, row, column) {
  const value = matrix.values[row * matrix.width + column], level = measured.levels[row * matrix.width + column];
  if (Number.isNaN(value)) return "not logged at this step";
  if (Number.isNaN(level)) return measured.isDifference ? "not in both runs, or not judged" : `${say(value)}, not judged`;
  if (measured.isDifference) {
    const unit = measured.kind === "fraction" ? `${(100 * level / measured.range).toFixed(0)} percentage points` : measured.kind === "plain" ? say(level) : `${level.toFixed(1)} decades`;
    return Number.isFinite(level) ? `difference ${unit}` : "one of the two is 0 or not finite";
  }
  const text = say(value);
  if (!Number.isFinite(level)) return measured.kind === "count" ? `${text} elements are not finite` : value === 0 ? "0: no signal" : Number.isFinite(value) ? `${text}; no signal enters` : "not finite";
  if (measured.kind === "fraction") return `${(100 * value).toFixed(0)} %`;
  if (measured.kind === "signal") {
    const entry = measured.entries[row];
    if (entry[0] === matrix.layers[row]) return `${text}, the signal enters here`;
    return Math.abs(level) <= measured.band ? `${text}, healthy beside ${entry[0]}` : `${text}, ${Math.abs(level).toFixed(1)} decades ${level < 0 ? "below" : "above"} ${entry[0]}, where the signal enters`;
  }
  if (measured.kind === "ratio") return `${text}, ${Math.abs(level) < 1 ? "usual" : `${Math.abs(level).toFixed(1)} decades from 1e-3`}`;
  if (measured.kind === "drift") return `${text}, ${Math.abs(level).toFixed(1)} decades ${level < 0 ? "below" : "above"} its first value`;
  return text;
}

// Small charts of lines and histograms.

const LEFT = 46, BOTTOM = 18, TOP = 6;

function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  Object.assign(canvas, {width: Math.round(width * ratio), height: Math.round(height * ratio)});
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  return {context, width, height};
}

const superscript = (number) => [...String(number)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit] ?? "⁻").join("");

function ticks(low, high, isLog) {
  if (isLog) {
    const every = Math.max(1, Math.ceil((high - low) / 4)), found = [];
    for (let power = Math.ceil(low / every) * every; power <= high; power += every) found.push([power, `10${superscript(power)}`]);
    return found;
  }
  const step = 10 ** Math.floor(Math.log10((high - low) / 2 || 1)), every = [1, 2, 5].map((k) => k * step).find((k) => (high - low) / k <= 4) ?? step * 5;
  const found = [];
  for (let value = Math.ceil(low / every) * every; value <= high + every / 1e6; value += every) found.push([value, String(Number(value.toPrecision(3)))]);
  return found;
}

/**
 * Lines over steps or over depth. `lines` have `color`, `isDashed` and `points` as `[x, y]`, whose `y` is null where
 * nothing can be drawn. Returns a function that gives the `x` at a place of the canvas.
 */
export function drawLines(canvas, theme, lines, {isLog = false, marked, unit = ""} = {}) {
  const {context, width, height} = prepare(canvas);
  const drawn = lines.map(({points, ...line}) => ({
    ...line, points: points.map(([x, y]) => [x, y === null || (isLog && !(y > 0)) ? null : isLog ? Math.log10(y) : y]),
  }));
  const xs = drawn.flatMap(({points}) => points.map(([x]) => x));
  const ys = drawn.flatMap(({points}) => points.map(([, y]) => y)).filter(Number.isFinite);
  const bounds = (numbers) => numbers.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [Infinity, -Infinity]);
  const [first, last] = bounds(xs);
  let [low, high] = ys.length ? bounds(ys) : [0, 1];
  if (isLog) [low, high] = [Math.floor(low - 0.05), Math.ceil(high + 0.05)];
  else [low, high] = [Math.min(low, 0), Math.max(high, 0) || (low < 0 ? 0 : 1)];
  const toX = (x) => LEFT + ((x - first) / (last - first || 1)) * (width - LEFT - 8);
  const toY = (y) => height - BOTTOM - ((y - low) / (high - low || 1)) * (height - BOTTOM - TOP);
  context.lineWidth = 1;
  for (const [value, text] of ticks(low, high, isLog)) {
    context.strokeStyle = theme.line;
    context.beginPath();
    context.moveTo(LEFT, toY(value));
    context.lineTo(width, toY(value));
    context.stroke();
    context.fillStyle = theme.dim;
    context.textAlign = "right";
    context.fillText(text, LEFT - 5, toY(value));
  }
  if (xs.length) {
    context.textAlign = "left";
    context.fillText(`${unit}${first}`, LEFT, height - 7);
    context.textAlign = "right";
    if (last !== first) context.fillText(String(last), width - 2, height - 7);
  }
  if (marked !== undefined && marked !== null) {
    context.strokeStyle = theme.accent;
    context.beginPath();
    context.moveTo(toX(marked), TOP);
    context.lineTo(toX(marked), height - BOTTOM);
    context.stroke();
  }
  context.lineWidth = 1.8;
  for (const {color, isDashed, points} of drawn) {
    context.strokeStyle = context.fillStyle = color;
    context.setLineDash(isDashed ? [4, 3] : []);
    context.beginPath();
    let isDown = false;
    for (const [x, y] of points) {
      if (y === null) isDown = false;
      else if (isDown) context.lineTo(toX(x), toY(y));
      else { context.moveTo(toX(x), toY(y)); isDown = true; }
    }
    context.stroke();
    const alone = points.filter(([, y], i) => y !== null && (points[i - 1]?.[1] ?? null) === null && (points[i + 1]?.[1] ?? null) === null);
    for (const [x, y] of alone) context.fillRect(toX(x) - 2, toY(y) - 2, 4, 4);
  }
  context.setLineDash([]);
  return (offset) => first + ((offset - LEFT) / (width - LEFT - 8)) * (last - first);
}

/** A histogram of `[left, right, count]`, as the density over its range. */
export function drawHistogram(canvas, theme, buckets, color) {
  const {context, width, height} = prepare(canvas);
  const filled = buckets.filter(([, , count]) => count > 0);
  if (!filled.length) return;
  // The middle 99.8 % have the room: one outlier would press all others into a line.
  const total = filled.reduce((sum, [, , count]) => sum + count, 0);
  const edge = (share) => {
    let sum = 0;
    return filled.find(([, , count]) => (sum += count) >= share * total) ?? filled[filled.length - 1];
  };
  let low = edge(0.001)[0], high = edge(0.999)[1];
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const least = (high - low) / width; // of a value that occurs often: a bucket without width
  const bars = filled.map(([left, right, count]) => [left, Math.max(right, left + least), count]).map(([left, right, count]) => [left, right, count / (right - left)]);
  const seen = bars.filter(([left, right]) => right > low && left < high);
  const tallest = Math.max(...seen.map(([, , density]) => density));
  const toX = (x) => 4 + ((Math.min(Math.max(x, low), high) - low) / (high - low)) * (width - 8);
  context.fillStyle = color;
  for (const [left, right, density] of seen) {
    const tall = Math.max(1, (Math.sqrt(density / tallest)) * (height - BOTTOM - TOP));
    context.fillRect(toX(left), height - BOTTOM - tall, Math.max(toX(right) - toX(left) - 0.5, 1), tall);
  }
  context.fillStyle = theme.dim;
  const say = (value) => String(Number(value.toPrecision(2)));
  context.textAlign = "left";
  context.fillText(say(low), 4, height - 7);
  context.textAlign = "right";
  context.fillText(say(high), width - 4, height - 7);
  if (low < 0 && high > 0 && toX(0) > 44 && toX(0) < width - 44) {
    context.textAlign = "center";
    context.fillText("0", toX(0), height - 7);
  }
}

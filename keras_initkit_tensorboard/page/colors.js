// Colors of levels. Safe for color-blind readers: blue below, vermilion above, purple for no signal.

const THEMES = {
  light: {neutral: "#ffffff", below: ["#bfdcee", "#0072b2", "#00263b"], above: ["#f9d2b8", "#d55e00", "#571f00"], alarm: "#a6227f", missing: "#e4e4e4"},
  dark: {neutral: "#24272b", below: ["#20455c", "#3d9fdd", "#d5efff"], above: ["#5d3520", "#ee7f38", "#ffe3d0"], alarm: "#e05fbe", missing: "#4a4e54"},
};
const STEPS = 240;
export const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]; // Okabe and Ito
export const DARK_LINES = ["#56b4e9", "#ee7f38", "#2fc79b", "#e59ac4", "#f0b93a", "#9ad4f5"];

const parts = (color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
const pack = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // as pixels lie in memory
const mix = (one, other, share) => one.map((part, i) => Math.round(part + (other[i] - part) * share));

/** A table of pixels for levels. Within the healthy band there is no color; without one colors begin at 0. */
export function makePalette(theme, {band, range}) {
  const {neutral, below, above, alarm, missing} = THEMES[theme];
  const shade = (stops, level) => {
    if (level <= band) return parts(neutral);
    const share = (level - band) / (range - band), [pale, full, end] = stops.map(parts);
    const from = band ? pale : parts(neutral);
    return share < 0.5 ? mix(from, full, share * 2) : mix(full, end, share * 2 - 1);
  };
  const table = new Uint32Array(2 * STEPS + 1);
  for (let i = 0; i <= STEPS; i++) {
    table[STEPS + i] = pack(shade(above, (i * range) / STEPS));
    table[STEPS - i] = pack(shade(below, (i * range) / STEPS));
  }
  return {table, range, alarm: pack(parts(alarm)), missing: pack(parts(missing))};
}

export function pixelOf(palette, level) {
  if (level !== level) return palette.missing;
  if (level === Infinity || level === -Infinity) return palette.alarm;
  const place = Math.round((level * STEPS) / palette.range);
  return palette.table[STEPS + (place > STEPS ? STEPS : place < -STEPS ? -STEPS : place)];
}

/** TensorBoard's theme where the page stands in it, the system's where it stands alone. Calls `changed` when it changes. */
export function watchTheme(changed) {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  let body = null;
  try {
    body = window.parent === window ? null : window.parent.document.body;
  } catch { /* a page of another origin shows TensorBoard */ }
  const read = () => ((body ? body.classList.contains("dark-mode") : system.matches) ? "dark" : "light");
  if (body) new MutationObserver(() => changed(read())).observe(body, {attributes: true, attributeFilter: ["class"]});
  else system.addEventListener("change", () => changed(read()));
  return read();
}

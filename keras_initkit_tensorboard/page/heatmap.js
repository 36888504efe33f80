// A heat map of layers by steps on a canvas: drawn from typed arrays, whatever is visible and nothing else.

import {pixelOf} from "./colors.js";

const AXIS = 22, GUTTER = 190, HIGHEST_ROW = 26, NAME_ROOM = 12;

/** What all maps show of rows and steps: rows from `top` to `bottom`, shares of the steps from `left` to `right`. */
export class View {
  constructor() { this.reset(0); }

  reset(rows) {
    Object.assign(this, {left: 0, right: 1, top: 0, bottom: rows, rows});
  }

  pan(shareOfWidth, rows) {
    const dx = clamp(shareOfWidth * (this.right - this.left), -this.left, 1 - this.right);
    const dy = clamp(rows, -this.top, this.rows - this.bottom);
    this.left += dx; this.right += dx; this.top += dy; this.bottom += dy;
  }

  /** Zooms about a place, given as shares of the map; fewer than three rows or a hundredth of the steps are not shown. */
  zoom(factor, x, y, onlySteps = false) {
    const width = clamp((this.right - this.left) * factor, 0.01, 1);
    const height = onlySteps ? this.bottom - this.top : clamp((this.bottom - this.top) * factor, Math.min(3, this.rows), this.rows);
    this.left = clamp(this.left + x * (this.right - this.left - width), 0, 1 - width);
    this.top = clamp(this.top + y * (this.bottom - this.top - height), 0, this.rows - height);
    this.right = this.left + width;
    this.bottom = this.top + height;
  }

  reveal(row) {
    const height = this.bottom - this.top;
    if (row < this.top) this.top = row;
    else if (row + 1 > this.bottom) this.top = row + 1 - height;
    this.bottom = this.top + height;
  }
}

export class HeatMap {
  /** `hasNames`: whether the names of the rows stand at its left. */
  constructor(canvas, view, hasNames) {
    Object.assign(this, {canvas, view, gutter: hasNames ? GUTTER : 0, rows: [], matrix: null, selected: {}, marks: new Map()});
    this.context = canvas.getContext("2d");
    this.found = new Map();
  }

  setData(matrix, levels, palette) {
    Object.assign(this, {matrix, levels, palette});
    this.found.clear();
  }

  setRows(rows) {
    this.rows = rows;
    this.found.clear();
  }

  /** Levels of a row: of a layer, or of a block the farthest from healthy among its layers. */
  levelsOf(row) {
    if (!this.found.has(row)) this.found.set(row, this.findLevels(row));
    return this.found.get(row);
  }

  findLevels(row) {
    const {width, rowOf} = this.matrix;
    const places = row.members.map((name) => rowOf.get(name)).filter((each) => each !== undefined);
    if (!places.length) return null;
    if (!row.isBlock) return this.levels.subarray(places[0] * width, (places[0] + 1) * width);
    const worst = new Float32Array(width).fill(NaN);
    for (const place of places) {
      for (let i = 0; i < width; i++) worst[i] = worse(worst[i], this.levels[place * width + i]);
    }
    return worst;
  }

  get rowHeight() {
    return Math.min(HIGHEST_ROW, (this.canvas.clientHeight - AXIS) / Math.max(this.view.bottom - this.view.top, 1e-9));
  }

  draw(theme) {
    const ratio = Math.min(window.devicePixelRatio || 1, 2), {clientWidth, clientHeight} = this.canvas;
    const width = Math.round(clientWidth * ratio), height = Math.round(clientHeight * ratio);
    if (!width || !height) return;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, {width, height});
    const context = this.context;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.matrix) return;
    this.drawCells(Math.round(this.gutter * ratio), width, Math.round(this.rowHeight * (this.view.bottom - this.view.top) * ratio));
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    this.drawSelection(theme, clientWidth);
    if (this.gutter) this.drawNames(theme);
    this.drawSteps(theme, clientWidth, clientHeight);
  }

  drawCells(left, right, height) {
    const across = right - left, {view, matrix, palette} = this;
    if (across <= 0 || height <= 0 || !matrix.width) return;
    if (this.image?.width !== across || this.image.height !== height) this.image = this.context.createImageData(across, height);
    const pixels = new Uint32Array(this.image.data.buffer);
    const first = view.left * matrix.width, wide = ((view.right - view.left) * matrix.width) / across;
    const tall = (view.bottom - view.top) / height;
    const starts = Int32Array.from({length: across + 1}, (_, i) => clamp(Math.floor(first + i * wide + 1e-9), 0, matrix.width - (i < across ? 1 : 0)));
    const line = new Float32Array(across);
    let before = -1;
    for (let y = 0; y < height; y++) {
      const start = clamp(Math.floor(view.top + y * tall + 1e-9), 0, this.rows.length - 1);
      const end = Math.max(start + 1, Math.min(Math.floor(view.top + (y + 1) * tall + 1e-9), this.rows.length));
      if (start === before && end === start + 1) { // the same row as the line above
        pixels.copyWithin(y * across, (y - 1) * across, y * across);
        continue;
      }
      before = start;
      line.fill(NaN);
      for (let row = start; row < end; row++) {
        const levels = this.levelsOf(this.rows[row]);
        if (levels) farthest(levels, starts, line);
      }
      for (let x = 0, to = y * across; x < across; x++) pixels[to++] = pixelOf(palette, line[x]);
    }
    this.context.putImageData(this.image, left, 0);
  }

  drawNames(theme) {
    const {view, context, rowHeight, selected} = this, bottom = rowHeight * (view.bottom - view.top);
    const from = Math.max(0, Math.floor(view.top)), seen = this.rows.slice(from, Math.ceil(view.bottom));
    const taken = new Uint8Array(Math.ceil(bottom / NAME_ROOM) * NAME_ROOM + 2 * NAME_ROOM);
    const isSelected = (row) => (selected.layer === undefined ? row.isBlock && row.name === selected.block : row.layer === selected.layer);
    // Where not all names have room, the chosen one and those of blocks go before those of layers.
    for (const wanted of [isSelected, (row) => row.isBlock, () => true]) {
      for (const [i, row] of seen.entries()) {
        const y = (from + i - view.top + 0.5) * rowHeight, place = Math.floor(y) + NAME_ROOM / 2;
        if (y < 0 || y > bottom || !wanted(row) || taken[place] || taken[place + NAME_ROOM - 1]) continue;
        taken.fill(1, place, place + NAME_ROOM);
        this.drawName(row, y, theme, isSelected(row));
      }
    }
  }

  drawName(row, y, theme, isSelected) {
    const {context} = this, inside = 18 + 10 * Math.min(row.depth, 4);
    context.fillStyle = isSelected ? theme.accent : theme.ink;
    context.font = `${row.isBlock || isSelected ? "600 " : ""}12px system-ui, sans-serif`;
    const text = row.isBlock ? `${row.isFolded ? "▸" : "▾"} ${row.name} (${row.members.length})` : row.name;
    context.fillText(shorten(context, text, this.gutter - inside - 6), inside, y);
    const mark = row.members.map((name) => this.marks.get(name)).find(Boolean);
    if (!mark) return;
    context.fillStyle = theme[mark];
    context.beginPath();
    context.arc(9, y, 4, 0, 7);
    context.fill();
  }

  drawSelection(theme, width) {
    const {view, context, rowHeight, selected} = this, bottom = rowHeight * (view.bottom - view.top);
    const row = this.rows.findIndex((each) => (selected.layer === undefined ? each.name === selected.block : each.layer === selected.layer));
    const outline = (x, y, across, down) => {
      for (const [color, thick] of [[theme.card, 4], [theme.accent, 2]]) { // seen on any color
        Object.assign(context, {strokeStyle: color, lineWidth: thick});
        context.strokeRect(x, y, across, down);
      }
    };
    if (row >= 0 && row >= view.top - 1 && row < view.bottom) outline(this.gutter + 1, (row - view.top) * rowHeight - 1, width - this.gutter - 2, Math.max(rowHeight, 2) + 2);
    if (selected.column === undefined) return;
    const x = this.xOf(selected.column, width), wide = this.xOf(selected.column + 1, width) - x;
    if (x + wide > this.gutter && x < width) outline(x - 1, 0, Math.max(wide, 2) + 2, bottom);
  }

  drawSteps(theme, width, height) {
    const {matrix, view, context} = this, y = Math.min(this.rowHeight * (view.bottom - view.top), height - AXIS) + AXIS / 2;
    context.clearRect(0, y - AXIS / 2, width, AXIS);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = theme.dim;
    const labels = Math.max(1, Math.floor((width - this.gutter) / 80));
    const from = Math.floor(view.left * matrix.width), to = Math.min(matrix.width, Math.ceil(view.right * matrix.width));
    const every = Math.max(1, Math.ceil((to - from) / labels));
    for (let column = Math.ceil(from / every) * every; column < to; column += every) {
      const text = String(matrix.steps[column]), x = (this.xOf(column, width) + this.xOf(column + 1, width)) / 2;
      const room = context.measureText(text).width;
      context.fillText(text, clamp(x - room / 2, this.gutter, width - room), y);
    }
  }

  xOf(column, width) {
    const {view, matrix} = this;
    return this.gutter + ((column / matrix.width - view.left) / (view.right - view.left)) * (width - this.gutter);
  }

  /** What lies at a point: `row` and `column` (undefined outside), `x` and `y` as shares of the map, `isName`. */
  at(offsetX, offsetY) {
    const {view, matrix, canvas, gutter, rowHeight} = this, across = canvas.clientWidth - gutter;
    const x = (offsetX - gutter) / across, y = offsetY / (rowHeight * (view.bottom - view.top));
    const row = Math.floor(view.top + y * (view.bottom - view.top));
    const column = Math.floor((view.left + x * (view.right - view.left)) * (matrix?.width ?? 0));
    return {
      row: y >= 0 && y < 1 ? this.rows[row] : undefined,
      column: x >= 0 && x < 1 && matrix ? Math.min(column, matrix.width - 1) : undefined,
      x: clamp(x, 0, 1), y: clamp(y, 0, 1), isName: x < 0,
    };
  }
}

const clamp = (value, low, high) => Math.max(low, Math.min(value, high));
const worse = (one, other) => (one !== one || Math.abs(other) > Math.abs(one) ? other : one);

/** For each pixel the level farthest from healthy of its cells and of what `line` has there. */
function farthest(levels, starts, line) {
  for (let x = 0; x < line.length; x++) {
    let found = line[x], size = found === found ? Math.abs(found) : -1, i = starts[x];
    const end = Math.max(i + 1, starts[x + 1]);
    for (; i < end; i++) {
      const level = levels[i], apart = level < 0 ? -level : level;
      if (apart > size) { found = level; size = apart; }
    }
    line[x] = found;
  }
}

/** Cuts the middle out of a text that is too wide. */
function shorten(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  const letters = [...text.slice(0, 300)]; // not half a letter, of two code units
  while (letters.length > 2 && context.measureText(`${letters.join("")}…`).width > width) letters.splice(letters.length >> 1, 1);
  letters.splice(letters.length >> 1, 0, "…");
  return letters.join("");
}

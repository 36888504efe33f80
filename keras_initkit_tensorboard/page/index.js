// The tab "Layers": TensorBoard calls `render` in a page of its own.

import {listBlocks, listRows, makeTree} from "./blocks.js";
import {DARK_LINES, LINES, makePalette, watchTheme} from "./colors.js";
import {columnOf, getLayer, getMatrix, getRuns, missingIn, onReload} from "./data.js";
import {markFindings, showFindings, showLayer, showProfile} from "./details.js";
import {addressOf, make, readAddress} from "./dom.js";
import {HeatMap, View} from "./heatmap.js";
import {listenToMap, listenToPage} from "./input.js";
import {buildPage} from "./layout.js";
import {showLegend} from "./legend.js";
import {measure, subtract, titleOf} from "./scales.js";

const QUICK = 120_000; // cells that are read at once; of more a part is shown first
const MOST_MAPS = 4;
const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;

class Page {
  constructor() {
    Object.assign(this, {turn: 0, isDifference: false, runs: [], shown: [], gone: [], panels: [], maps: [], matrices: new Map(), layers: new Map(), folded: new Set(), tree: [], rows: [], view: new View()});
    this.selection = readAddress(); // run, statistic, layer or block, step
    this.setTheme(watchTheme((theme) => { this.setTheme(theme); this.show(); }));
    this.places = buildPage(this);
    new ResizeObserver(() => this.draw()).observe(this.places.maps);
    listenToPage(this);
  }

  setTheme(name) {
    document.documentElement.dataset.theme = name;
    const style = getComputedStyle(document.documentElement);
    this.theme = {name, lines: name === "dark" ? DARK_LINES : LINES};
    for (const each of ["card", "ink", "dim", "line", "accent", "error", "warning", "info"]) this.theme[each] = style.getPropertyValue(`--${each}`).trim();
  }

  /** Reads the list of runs again, and what is shown of them. */
  async load() {
    try {
      this.runs = await getRuns();
      this.matrices.clear();
      this.layers.clear();
      const wanted = [...new Set([...this.shown, this.selection.run])].filter(Boolean);
      this.gone = wanted.filter((run) => !this.infoOf(run));
      this.shown = wanted.filter((run) => this.infoOf(run)).slice(-MOST_MAPS);
      if (!this.shown.length) this.shown = this.runs.slice(-1).map(({run}) => run);
      await this.read();
    } catch (error) {
      this.say(`The log could not be read: ${error.message}`);
    }
  }

  update() { return this.read().catch((error) => this.say(`The log could not be read: ${error.message}`)); }

  say(text) { this.places.notice.textContent = text; }

  infoOf(run) { return this.runs.find((each) => each.run === run); }

  /** Shows the chosen runs and statistic; what is not there is asked for. */
  async read() {
    const turn = ++this.turn;
    this.showChoices();
    if (!this.shown.length) return this.clear("This log holds no statistics of layers. Train with keras_initkit's LayerStatsCallback and the log directory that TensorBoard reads.");
    const {statistic} = this.selection, asked = this.shown.filter((run) => this.infoOf(run).statistics.includes(statistic));
    for (const isPreview of [true, false]) {
      await Promise.all(asked.map(async (run) => {
        const key = JSON.stringify([run, statistic]), info = this.infoOf(run);
        const cells = info.layers * Math.min(info.last_step + 1, 1000);
        if (this.matrices.has(key) && !this.matrices.get(key).is_preview) return;
        if (isPreview && cells <= QUICK) return;
        const matrix = await getMatrix(run, statistic, isPreview ? Math.max(20, Math.floor(QUICK / info.layers)) : undefined);
        this.matrices.set(key, matrix);
      }));
      if (turn !== this.turn) return; // another choice was made meanwhile
      this.panels = asked.flatMap((run) => {
        const matrix = this.matrices.get(JSON.stringify([run, statistic])), {record} = this.infoOf(run);
        return matrix ? [{run, matrix, record, measured: measure(matrix, record)}] : [];
      });
      if (this.panels.length) this.showPanels();
    }
  }

  clear(text) {
    this.say(text);
    this.panels = this.drawn = this.maps = [];
    for (const name of ["maps", "legend", "findings", "layer", "profile"]) this.places[name].replaceChildren();
  }

  showChoices() {
    const {statistic, runList, runTitle} = this.places, names = this.runs.map(({run}) => run);
    const statistics = [...new Set(this.runs.filter(({run}) => this.shown.includes(run)).flatMap((each) => each.statistics))];
    if (!statistics.includes(this.selection.statistic)) this.selection.statistic = statistics[0];
    statistic.replaceChildren(...statistics.map((name) => make("option", {value: name, selected: name === this.selection.statistic}, titleOf(name))));
    runList.replaceChildren(...names.map((run) => make("label", {}, make("input", {type: "checkbox", value: run, checked: this.shown.includes(run), onchange: (event) => this.toggleRun(run, event.target.checked)}), run)));
    runTitle.textContent = this.shown.length === 1 ? `Run: ${this.shown[0]}` : `Runs: ${this.shown.length} of ${names.length}`;
    this.places.differenceLabel.hidden = this.shown.length !== 2;
    this.isDifference &&= this.shown.length === 2;
    this.places.difference.checked = this.isDifference;
  }

  setDifference(isDifference) { this.isDifference = isDifference; this.update(); }

  toggleRun(run, isShown) {
    this.shown = isShown ? [...this.shown, run].slice(-MOST_MAPS) : this.shown.filter((each) => each !== run);
    if (!this.shown.length) this.shown = [run];
    this.gone = [];
    this.selection.run = this.shown.at(-1); // the address is a link to it, and a reload keeps it
    window.history.replaceState(null, "", addressOf(this.selection));
    this.update();
  }

  showPanels() {
    this.drawn = this.panels;
    if (this.isDifference && this.panels.length === 2) {
      const [one, other] = this.panels, measured = subtract(one.matrix, one.measured, other.matrix, other.measured, columnOf);
      this.drawn = [{...one, run: `${one.run} minus ${other.run}`, measured}];
    }
    if (this.maps.length !== this.drawn.length) {
      this.maps = this.drawn.map((_, i) => {
        const canvas = make("canvas", {tabindex: i ? -1 : 0, role: "application", "aria-label": "Heat map of layers by steps. Arrow keys choose a layer and a step."});
        const map = new HeatMap(canvas, this.view, i === 0);
        listenToMap(this, map);
        return map;
      });
      this.places.maps.replaceChildren(...this.maps.map((map, i) => make("figure", {class: i ? "" : "named"}, make("figcaption", {}), map.canvas)));
    }
    this.say(missingIn(this.drawn, this.gone));
    const layers = [...new Set(this.drawn.flatMap(({matrix}) => matrix.layers))];
    if (JSON.stringify(layers) !== this.layersKey) {
      this.layersKey = JSON.stringify(layers);
      this.tree = makeTree(layers);
    }
    this.listRows();
    this.show();
  }

  listRows() {
    this.rows = listRows(this.tree, this.folded, this.places.search.value);
    for (const map of this.maps) map.setRows(this.rows);
    if (this.view.rows !== this.rows.length) this.view.reset(this.rows.length);
    this.draw();
  }

  /** Draws everything, in the theme that TensorBoard has now. */
  show() {
    if (!this.drawn?.length) return;
    for (const [i, {run, matrix, measured, record}] of this.drawn.entries()) {
      const map = this.maps[i];
      map.setData(matrix, measured.levels, makePalette(this.theme.name, measured));
      map.marks = new Map([...(record?.findings ?? [])].reverse().map(({layer, severity}) => [layer, severity]));
      map.canvas.previousSibling.textContent = this.drawn.length > 1 || this.isDifference ? run : `${titleOf(matrix.statistic)}, ${count(matrix.layers.length, "layer")}, ${count(matrix.width, "step")}`;
    }
    showLegend(this.places.legend, this.drawn[0], this.theme);
    this.draw();
    this.showDetails();
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      for (const [i, map] of this.maps.entries()) {
        const {layer, block, step} = this.selection, {matrix} = this.drawn[i];
        map.selected = {layer, block, column: step === undefined ? undefined : columnOf(matrix.steps, step)};
        map.draw(this.theme);
      }
    });
  }

  async showDetails() {
    const {selection, theme, panels} = this, {layer, block, step, statistic} = selection, pick = (chosen) => this.go(chosen);
    const infos = this.shown.map((run) => this.infoOf(run)); // others after each reload
    if (this.listed?.length !== infos.length || infos.some((each, i) => each !== this.listed[i])) showFindings(this.places.findings, (this.listed = infos));
    markFindings(this.places.findings, layer);
    showProfile(this.places.profile, {step, panels, statistic, theme, pick});
    const draw = () => showLayer(this.places.layer, {layer, block, step: this.selection.step, panels: this.drawn, theme: this.theme, pick, answers: this.shown.map((run) => ({run, answer: this.layers.get(JSON.stringify([run, layer]))}))});
    draw();
    if (layer === undefined) return;
    const missing = this.shown.filter((run) => !this.layers.has(JSON.stringify([run, layer])));
    clearTimeout(this.waiting);
    if (!missing.length) return;
    // While a key is held, the layers that are passed are not asked for.
    this.waiting = setTimeout(async () => {
      try {
        for (const run of missing) this.layers.set(JSON.stringify([run, layer]), await getLayer(run, layer));
        if (this.selection.layer === layer) draw();
      } catch (error) {
        this.say(`The layer could not be read: ${error.message}`);
      }
    }, 80);
  }

  /** Chooses a statistic, a layer or block, a step, a run. */
  go(chosen, isShown = false) {
    const before = this.selection;
    this.selection = {...before, ...chosen};
    if ("layer" in chosen && chosen.layer !== undefined) this.selection.block = undefined;
    window.history.replaceState(null, "", addressOf(this.selection));
    const isNewRun = chosen.run !== undefined && !this.shown.includes(chosen.run) && this.infoOf(chosen.run);
    if (isNewRun) this.shown = [chosen.run];
    if (isNewRun || this.selection.statistic !== before.statistic) this.update();
    else this.showDetails();
    const row = this.rows.findIndex((each) => each.layer !== undefined && each.layer === this.selection.layer);
    if (row >= 0) this.view.reveal(row);
    if (isShown) this.revealFolded();
    this.draw();
  }

  /** Unfolds and finds the chosen layer, when a link leads to it. */
  revealFolded() {
    const {layer} = this.selection;
    if (layer === undefined || this.rows.some((each) => each.layer === layer)) return;
    this.places.search.value = "";
    for (const block of [...this.folded]) {
      if (listRows(this.tree, new Set(), "").some((row) => row.name === block && row.members.includes(layer))) this.folded.delete(block);
    }
    this.listRows();
    this.view.reveal(this.rows.findIndex((each) => each.layer === layer));
  }

  fold(block) {
    if (!this.folded.delete(block)) this.folded.add(block);
    this.listRows();
  }

  foldAll() {
    this.folded = this.folded.size ? new Set() : new Set(listBlocks(this.tree));
    this.listRows();
  }

  zoom(factor, x = 0.5, y = 0.5, onlySteps = false) {
    this.view.zoom(factor, x, y, onlySteps);
    this.draw();
  }

  resetView() { this.view.reset(this.rows.length); this.draw(); }
}

/** Called by TensorBoard when the tab is opened. */
export async function render() {
  // Stricter than TensorBoard's own policy: whatever stands in a log, nothing but this plugin's files is loaded.
  document.head.append(
    make("meta", {"http-equiv": "Content-Security-Policy", content: "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"}),
    make("meta", {name: "viewport", content: "width=device-width"}));
  const style = make("link", {rel: "stylesheet", href: "style.css"});
  await new Promise((done) => { style.onload = style.onerror = done; document.head.append(style); });
  const page = new Page();
  onReload(() => page.load());
  await page.load();
}

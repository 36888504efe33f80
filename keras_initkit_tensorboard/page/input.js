// Mouse and keyboard.

import {columnOf} from "./data.js";
import {readAddress} from "./dom.js";

const MOVED = 4; // pixels, from which on a press is no click

/** Clicks choose, drags move, the wheel scrolls, and zooms with Ctrl. */
export function listenToMap(page, map) {
  const {canvas} = map;
  let from = null;
  canvas.addEventListener("pointerdown", (event) => {
    from = {x: event.offsetX, y: event.offsetY, isDrag: false};
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const place = map.at(event.offsetX, event.offsetY);
    canvas.title = place.row?.name ?? "";
    canvas.style.cursor = place.isName ? "pointer" : "crosshair";
    if (!from) return;
    const dx = event.offsetX - from.x, dy = event.offsetY - from.y;
    if (!from.isDrag && Math.hypot(dx, dy) < MOVED) return;
    Object.assign(from, {isDrag: true, x: event.offsetX, y: event.offsetY});
    page.view.pan(-dx / (canvas.clientWidth - map.gutter), -dy / map.rowHeight);
    page.draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    const isClick = from && !from.isDrag;
    from = null;
    if (!isClick) return;
    canvas.focus();
    const {row, column, isName} = map.at(event.offsetX, event.offsetY);
    if (row?.isBlock && isName) return page.fold(row.name);
    const step = column === undefined ? {} : {step: map.matrix.steps[column]};
    if (row?.isBlock) page.go({...step, layer: undefined, block: row.name});
    else if (row) page.go({...step, layer: row.layer});
    else page.go(step);
  });
  canvas.addEventListener("dblclick", () => page.resetView());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 30 : 1, {x, y} = map.at(event.offsetX, event.offsetY);
    if (event.ctrlKey || event.metaKey) return page.zoom(Math.exp(event.deltaY * unit * 0.002), x, y, event.altKey);
    const [dx, dy] = event.shiftKey ? [event.deltaY, 0] : [event.deltaX, event.deltaY];
    page.view.pan((dx * unit) / (canvas.clientWidth - map.gutter), (dy * unit) / map.rowHeight);
    page.draw();
  }, {passive: false});
  canvas.addEventListener("keydown", (event) => {
    const act = KEYS[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(page);
  });
}

const moveRow = (by) => (page) => {
  const {layer, block} = page.selection, {rows} = page;
  if (!rows.length) return;
  const at = rows.findIndex((row) => (layer === undefined ? row.name === block && row.isBlock : row.layer === layer));
  const row = rows[at < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, at + by))];
  page.go(row.isBlock ? {layer: undefined, block: row.name} : {layer: row.layer});
  page.view.reveal(rows.indexOf(row));
};

const moveStep = (by) => (page) => {
  const {steps} = page.drawn[0].matrix, {step} = page.selection;
  const at = step === undefined ? (by > 0 ? -1 : steps.length) : columnOf(steps, step);
  page.go({step: steps[Math.max(0, Math.min(steps.length - 1, at + by))]});
};

const toggle = (page) => {
  const {layer, block} = page.selection;
  const row = page.rows.find((each) => (layer === undefined ? each.name === block && each.isBlock : each.layer === layer));
  if (!row?.block) return;
  page.fold(row.block);
  page.go({layer: undefined, block: row.block});
};

/** Keys of the map. */
export const KEYS = {
  ArrowDown: moveRow(1), ArrowUp: moveRow(-1), PageDown: moveRow(20), PageUp: moveRow(-20),
  ArrowRight: moveStep(1), ArrowLeft: moveStep(-1), Home: moveStep(-Infinity), End: moveStep(Infinity),
  Enter: toggle, " ": toggle, f: (page) => page.foldAll(),
  "+": (page) => page.zoom(1 / 1.5), "=": (page) => page.zoom(1 / 1.5), "-": (page) => page.zoom(1.5), 0: (page) => page.resetView(),
};

/** Links to a layer and a step, and "/" for the search. */
export function listenToPage(page) {
  window.addEventListener("hashchange", () => page.go(readAddress(), true));
  document.addEventListener("keydown", (event) => {
    const {search, maps} = page.places, inField = ["INPUT", "SELECT"].includes(event.target.tagName);
    if (event.key === "/" && !inField) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape" && event.target === search) {
      search.value = "";
      page.listRows();
      maps.querySelector("canvas")?.focus();
    } else if (event.key === "Enter" && event.target === search) {
      const row = page.rows.find((each) => each.layer !== undefined);
      if (row) page.go({layer: row.layer});
      maps.querySelector("canvas")?.focus();
    }
  });
}

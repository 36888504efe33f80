// The colors of the map and what they mean.

import {makePalette, pixelOf} from "./colors.js";
import {describeScale} from "./details.js";
import {make} from "./dom.js";

/** Shows the scale of a statistic. */
export function showLegend(place, {measured, matrix}, theme) {
  const palette = makePalette(theme.name, measured);
  const [low, middle, high] = describeScale(measured, matrix);
  const from = low === null ? 0 : -measured.range;
  const patch = (level, title) => [make("i"), title].map((each, i) => {
    if (i === 0) fill(each, pixelOf(palette, level));
    return each;
  });
  const parts = [];
  if (high !== null) {
    const canvas = make("canvas", {width: 190, height: 1});
    const context = canvas.getContext("2d"), image = context.createImageData(190, 1), pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < 190; i++) pixels[i] = pixelOf(palette, from + ((measured.range - from) * i) / 189);
    context.putImageData(image, 0, 0);
    parts.push(make("span", {}, low ?? middle), canvas, make("span", {}, high));
  }
  if (high === null || low !== null) parts.push(...patch(0, middle));
  const infinite = {count: "not finite", signal: "0 or not finite"}[measured.kind] ?? "not finite";
  parts.push(...patch(Infinity, infinite), ...patch(NaN, measured.kind === "signal" ? "not logged or not judged" : "not logged"));
  place.replaceChildren(...parts);
}

function fill(element, pixel) {
  element.style.background = `rgb(${pixel & 255} ${(pixel >> 8) & 255} ${(pixel >> 16) & 255})`; // by script: the policy forbids attributes
}

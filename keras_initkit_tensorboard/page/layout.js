// What stands where on the page.

import {make} from "./dom.js";

/** Fills the page; returns the elements that change, by name. */
export function buildPage(page) {
  const button = (label, title, act) => make("button", {type: "button", title, onclick: act}, label);
  const difference = make("input", {type: "checkbox", id: "difference", onchange: (event) => page.setDifference(event.target.checked)});
  const places = {
    difference, differenceLabel: make("label", {hidden: true}, difference, "difference of the two"),
    statistic: make("select", {id: "statistic", onchange: (event) => page.go({statistic: event.target.value})}),
    runTitle: make("summary", {}), runList: make("div", {}),
    search: make("input", {type: "search", id: "search", placeholder: "Search layers (/)", "aria-label": "Search layers", oninput: () => page.listRows()}),
    notice: make("p", {class: "notice", role: "status"}),
    maps: make("div", {class: "maps"}), legend: make("div", {class: "legend"}),
    findings: make("section", {id: "findings"}), layer: make("section", {id: "layer", "aria-live": "polite"}), profile: make("section", {id: "profile"}),
  };
  document.body.replaceChildren(
    make("header", {},
      make("label", {}, "Show", places.statistic), make("details", {class: "runs"}, places.runTitle, places.runList), places.differenceLabel, places.search,
      make("span", {},
        button("Fold", "Fold all blocks (f)", () => page.foldAll()), " ", button("−", "Zoom out (-)", () => page.zoom(1.5)), " ",
        button("+", "Zoom in (+)", () => page.zoom(1 / 1.5)), " ", button("All", "Show all (0)", () => page.resetView()))),
    places.notice,
    make("main", {}, make("div", {class: "left"}, places.maps, places.legend), make("aside", {}, places.findings, make("div", {id: "chosen"}, places.layer, places.profile))));
  return places;
}

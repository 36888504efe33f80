// Elements. What comes from a log is text and never markup: it is set by `textContent` alone.

/** An element with attributes, listeners (`onclick`) and children, which are elements or text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The address of this page at a layer and a step. */
export function addressOf(selection) {
  const given = Object.entries(selection).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return `${window.location.href.split("#")[0]}#${new URLSearchParams(given)}`;
}

/** What an address says. */
export function readAddress() {
  const found = Object.fromEntries(new URLSearchParams(window.location.hash.slice(1)));
  if (found.step !== undefined) found.step = Number(found.step) || 0;
  return found;
}

/**
 * The few signs that the views use, drawn so that they take the colour of the text around them.
 * @module icons
 */
import { h } from "../../static/dom.js";

const PATHS = {
  copy: "M5 5V3.5A1.5 1.5 0 0 1 6.5 2h6A1.5 1.5 0 0 1 14 3.5v6a1.5 1.5 0 0 1-1.5 1.5H11M3.5 5h6A1.5 1.5 0 0 1 11 6.5v6A1.5 1.5 0 0 1 9.5 14h-6A1.5 1.5 0 0 1 2 12.5v-6A1.5 1.5 0 0 1 3.5 5Z",
  open: "M9 2.5h4.5V7M13 3 7.5 8.5M6 3.5H4A1.5 1.5 0 0 0 2.5 5v7A1.5 1.5 0 0 0 4 13.5h7a1.5 1.5 0 0 0 1.5-1.5v-2",
  share: "M8 9.500V2.500M5.500 5 8 2.500 10.500 5M4.500 7.500H3v6h10v-6h-1.500",
  close: "m4 4 8 8M12 4l-8 8",
  lock: "M5 7V5a3 3 0 0 1 6 0v2M4 7h8v6.5H4Z",
  unlock: "M5 7V5a3 3 0 0 1 5.6-1.5M4 7h8v6.5H4Z",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  play: "M5 3.5v9l7-4.5Z",
  clear: "M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.5 9h6l.5-9",
  history: "M8 4.5V8l2.5 1.5M2.6 6.5A5.6 5.6 0 1 1 2.5 9.200M2.5 3.500v3h3",
  braces: "M6 2.500C3.500 2.500 5.500 7 3 8c2.500 1 .5 5.500 3 5.500M10 2.500c2.500 0 .5 4.500 3 5.500-2.500 1-.5 5.500-3 5.500",
  left: "M10 3.500 5.500 8l4.500 4.500",
  right: "M6 3.500 10.500 8 6 12.500",
};

/** @param {keyof typeof PATHS} name */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 16 16", class: "ja-icon", "aria-hidden": "true" })) {
    svg.setAttribute(key, value);
  }
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/**
 * A button that shows a sign and says a word.
 * @param {keyof typeof PATHS} name
 * @param {string} label
 * @param {(event: Event) => void} onclick
 * @param {Record<string, any>} [props]
 */
export function signButton(name, label, onclick, props = {}) {
  const look = { type: "button", class: "ja-sign", "aria-label": label, title: label };
  return h("button", { ...look, ...props, onclick }, icon(name));
}

/**
 * Give a sign another meaning.
 * @param {HTMLElement} button
 * @param {keyof typeof PATHS} name
 * @param {string} label
 */
export function setSign(button, name, label) {
  if (button.title === label) return;
  button.replaceChildren(icon(name));
  button.title = label;
  button.setAttribute("aria-label", label);
}

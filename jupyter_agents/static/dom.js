/**
 * What the views share: making elements, and writing values for people.
 *
 * Every view is `mount…(element, props) → { update(props), destroy() }`, keeps to the classes of agent-views.css
 * (Jupyter's `--jp-*` variables, with fallbacks), and knows no framework, page or client.
 * @module dom
 */

/**
 * @typedef {Node | string | null | undefined | false} Child
 */

/**
 * An element. `on…` are listeners, true and false set or leave out an attribute, all text is text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [props]
 * @param {Child[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) setProp(element, name, value);
  element.append(...children.filter(isPresent));
  return element;
}

/**
 * @param {Child} child
 * @returns {child is Node | string}
 */
function isPresent(child) {
  return child !== null && child !== undefined && child !== false;
}

/**
 * @param {HTMLElement} element
 * @param {string} name
 * @param {any} value
 */
function setProp(element, name, value) {
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (value === true) element.setAttribute(name, "");
  else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
}

/**
 * A button that shows a sign and says a word.
 * @param {string} sign
 * @param {string} label
 * @param {(event: Event) => void} onclick
 * @param {Record<string, any>} [props]
 */
export function iconButton(sign, label, onclick, props = {}) {
  const look = { type: "button", class: "ja-icon-button", "aria-label": label, title: label };
  return h("button", { ...look, ...props, onclick }, h("span", { "aria-hidden": "true" }, sign));
}

/**
 * The present time on the clock, to the second.
 * @param {Date} [date]
 */
export function clockTime(date = new Date()) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

/** @param {number} count */
export function bytesText(count) {
  if (count < 1024) return `${count} ${count === 1 ? "byte" : "bytes"}`;
  const units = ["KiB", "MiB", "GiB"];
  const power = Math.min(Math.floor(Math.log2(count) / 10), units.length);
  return `${(count / 1024 ** power).toFixed(1)} ${units[power - 1]}`;
}

/** @param {number} milliseconds */
export function durationText(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

/**
 * A JSON value as text: on one line while that is short.
 * @param {any} value
 */
export function jsonText(value) {
  const line = JSON.stringify(value);
  if (line === undefined) return "";
  return line.length <= 72 ? line : JSON.stringify(value, null, 2);
}

/**
 * @param {string} text
 * @param {number} limit
 */
export function shortened(text, limit) {
  return text.length <= limit ? text : `${text.slice(0, limit - 1)}…`;
}

/**
 * The value a text stands for: JSON where it is JSON, else the text itself.
 * @param {string} text
 * @returns {any}
 */
export function looseValue(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

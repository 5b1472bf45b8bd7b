/**
 * How live views write things for people: who, when, how many.
 * @module words
 */
import { h } from "../../static/dom.js";

/** @typedef {{ id: string, n: number, user: string }} Who */

/**
 * A name to tell connections apart by: the user and the start of the id, or the id alone. Jupyter invents names for
 * those it does not know ("Anonymous Carme"); they tell nobody anything.
 * @param {Who | null | undefined} who
 */
export function whoText(who) {
  if (!who) return "";
  const id = shortId(who.id);
  return who.user && !who.user.startsWith("Anonymous ") ? `${who.user} · ${id}` : id;
}

/**
 * An id that a machine made is cut to its start; one that a person chose is not.
 * @param {string} id
 */
export function shortId(id) {
  return id.length > 24 || /^[0-9a-f-]{20,}$/i.test(id) ? id.slice(0, 6) : id;
}

/**
 * How long ago, in words that need no refreshing more than once a second.
 * @param {number} at In seconds since 1970.
 * @param {number} [now] In milliseconds.
 */
export function agoText(at, now = Date.now()) {
  const seconds = Math.max(0, Math.round(now / 1000 - at));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/**
 * @param {number} count
 * @param {string} one
 */
export function countText(count, one) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : `${one}s`}`;
}

/** @param {number} rate A second. */
export function rateText(rate) {
  return rate >= 10 || Number.isInteger(rate) ? String(Math.round(rate)) : rate.toFixed(1);
}

/**
 * What to say where there is nothing yet.
 * @param {string} text
 * @param {...(Node | string)} more
 */
export function hint(text, ...more) {
  return h("p", { class: "ja-hint" }, text, ...more);
}

/**
 * @param {HTMLElement} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

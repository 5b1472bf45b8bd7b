/**
 * What went wrong, for the author: errors with their tracebacks, slow hooks, refused input.
 * @module problems-view
 */
import { clockTime, h } from "../../static/dom.js";
import { signButton } from "./icons.js";
import { hint, whoText } from "./words.js";

/**
 * @typedef {object} Problem
 * @property {number} n
 * @property {number} at
 * @property {"error" | "warning" | "refused"} level
 * @property {string} where
 * @property {string} text
 * @property {import("./words.js").Who | null} who
 * @property {string} trace
 */

const KEPT = 100;
const WORDS = { error: "Error", warning: "Warning", refused: "Refused" };

/** @param {Problem} problem */
function lineOf({ level, where, text, who, trace, at }) {
  const head = h("span", { class: "ja-problem-head" }, h("strong", {}, WORDS[level]), where ? ` in ${where}` : "");
  const meta = h("span", { class: "ja-muted" }, who ? `${whoText(who)} · ` : "", clockTime(new Date(at * 1000)));
  const first = h("div", { class: "ja-problem-line" }, head, meta);
  const body = h("div", { class: "ja-problem-text" }, text);
  const full = trace ? h("details", {}, h("summary", {}, "Traceback"), h("pre", { class: "ja-code", tabindex: "0" }, trace)) : null;
  return h("li", { "data-level": level }, first, body, full);
}

export class ProblemsView {
  title = "Log";
  #count = 0;
  #empty = hint("No problems. Errors in hooks, slow hooks and refused input appear here.");
  #list = h("ol", { class: "ja-problems" });
  tools = [signButton("clear", "Clear the log", () => this.#clear())];
  element = h("div", { class: "ja-fill" }, h("div", { class: "ja-scroll", tabindex: "0", role: "group", "aria-label": "Log" }, this.#empty, this.#list));

  /** Problems since they were looked at. */
  get badge() {
    return this.element.offsetParent ? (this.#count = 0) : this.#count;
  }

  /**
   * @param {{ entries: Problem[] }} facts
   * @param {boolean} isWhole
   */
  update({ entries }, isWhole) {
    if (isWhole) this.#clear();
    this.#count += entries.length;
    this.#list.prepend(...entries.map(lineOf).reverse());
    while (this.#list.childElementCount > KEPT) this.#list.lastElementChild?.remove();
    this.#empty.hidden = this.#list.childElementCount > 0;
  }

  refresh() {}

  end() {}

  #clear() {
    this.#list.replaceChildren();
    this.#count = 0;
    this.#empty.hidden = false;
  }
}

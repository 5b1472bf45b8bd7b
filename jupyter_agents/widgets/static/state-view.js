/**
 * The state as a tree that shows changes as they happen, and its past to look at, compare and restore.
 * @module state-view
 */
import { bytesText, clockTime, h, jsonText, shortened } from "../../static/dom.js";
import { mountStateTree } from "../../static/state-tree.js";
import { setSign, signButton } from "./icons.js";
import { countText, hint, setText, whoText } from "./words.js";

/**
 * @typedef {object} Moment
 * @property {number} version
 * @property {number} size
 * @property {number} at
 * @property {any} by
 * @property {number} changes
 * @property {any} [value]
 */

/** @typedef {import("./live-view.js").Context} Context */
/** @typedef {{ path: string, before?: any, after?: any }} Difference */

const PAST = 50;
const DIFFERENCES = 100;

/**
 * Where two values differ, at the smallest places.
 * @param {any} before
 * @param {any} after
 * @param {string} [path]
 * @returns {Difference[]}
 */
export function differences(before, after, path = "") {
  const isPair = isBranch(before) && isBranch(after) && Array.isArray(before) === Array.isArray(after);
  if (!isPair) return JSON.stringify(before) === JSON.stringify(after) ? [] : [{ path: path || "all of it", before, after }];
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return keys.flatMap((key) => differences(before[key], after[key], path ? `${path} › ${key}` : key));
}

/** @param {any} value */
function isBranch(value) {
  return typeof value === "object" && value !== null;
}

export class StateView {
  title = "State";
  badge = 0;
  /** @type {Moment[]} */ #past = [];
  /** @type {Moment | null} */ #now = null;
  /** @type {Record<string, { takes: string, readonly: boolean }>} */ #fields = {};
  /** How many moments back is shown; 0 is now. */
  #back = 0;
  #isText = false;
  #isReadonly = true;
  #place = h("div", { class: "ja-scroll ja-state-tree", tabindex: "-1" });
  #large = hint("");
  #problem = h("p", { class: "ja-problem ja-state-problem", role: "alert" });
  #caption = h("span", { class: "ja-caption ja-muted" });
  #slider = h("input", { type: "range", min: 0, "aria-label": "Moment of the past" });
  #when = h("span", { class: "ja-caption ja-muted", role: "status" });
  #differences = h("ul", { class: "ja-differences" });
  #restore = h("button", { type: "button", class: "ja-button ja-small", onclick: () => void this.#doRestore() }, "Restore");
  #travel;
  #inner;
  #tree;

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.#travel = this.#buildTravel();
    this.historyButton = signButton("history", "Show the past", () => this.#toggleTravel(), { "aria-pressed": "false" });
    this.textButton = signButton("braces", "Edit as JSON", () => this.#toggleText());
    this.tools = [this.#caption, this.historyButton, this.textButton];
    const inner = h("div");
    this.#inner = inner;
    this.#place.append(inner, this.#large);
    this.element = h("div", { class: "ja-fill" }, this.#travel, this.#problem, this.#place);
    this.#tree = mountStateTree(inner, {
      value: undefined,
      onEdit: (path, value) => this.#edit(path, value),
      onRemove: (path) => this.context.link.ask("remove", { path }),
      onChange: (value) => void this.#edit([], value).catch((error) => setText(this.#problem, `Not changed: ${error.message}`)),
      onDone: () => this.#isText && this.#toggleText(),
      ruleOf: (path) => this.#fields[String(path[0])],
    });
  }

  #buildTravel() {
    this.#slider.addEventListener("input", () => this.#goTo(this.#past.length - Number(this.#slider.value)));
    const earlier = signButton("left", "One moment back", () => this.#goTo(this.#back + 1));
    const later = signButton("right", "One moment on", () => this.#goTo(this.#back - 1));
    const bar = h("div", { class: "ja-travel-bar" }, earlier, this.#slider, later, this.#when, this.#restore);
    return h("div", { class: "ja-travel", hidden: true }, bar, this.#differences);
  }

  /**
   * @param {{ fields?: any, past?: Moment[], now?: Moment | null }} facts
   * @param {boolean} isWhole
   */
  update({ fields, past, now }, isWhole) {
    this.#fields = fields ?? this.#fields;
    if (isWhole) {
      this.#past = past ?? [];
      this.#back = 0;
    } else if (this.#now && now?.version !== this.#now.version) {
      this.#past.push(this.#now);
      if (this.#past.length > PAST) this.#past.shift();
      if (this.#back > 0) this.#back = Math.min(this.#back + 1, this.#past.length); // the eye stays where it is
    }
    this.#now = now ?? null;
    this.#show();
  }

  refresh() {
    if (this.#isReadonly !== (this.#back > 0 || !this.context.isLive)) this.#show();
  }

  end() {
    this.#tree.destroy();
  }

  #show() {
    const moment = this.#shown;
    const isLarge = moment !== null && !("value" in moment);
    this.#isReadonly = this.#back > 0 || !this.context.isLive;
    const hasFields = Object.keys(this.#fields).length > 0;
    this.#tree.update({
      value: moment && !isLarge ? moment.value : undefined,
      readonly: this.#isReadonly,
      fixedKeys: hasFields,
      mode: this.#isText && this.#back === 0 ? "text" : "tree",
    });
    this.#inner.hidden = isLarge;
    this.#large.hidden = !isLarge;
    if (isLarge) setText(this.#large, `The state has ${bytesText(moment.size)}; that is too much to show.`);
    this.#showCaption();
    if (!this.#travel.hidden) this.#showTravel();
  }

  get #shown() {
    return this.#back > 0 ? (this.#past[this.#past.length - this.#back] ?? this.#now) : this.#now;
  }

  #showCaption() {
    const now = this.#now;
    if (!now) return setText(this.#caption, "");
    return setText(this.#caption, `v${now.version}${this.#author(now)}`);
  }

  /** @param {Moment} moment */
  #author({ by }) {
    if (!by) return "";
    return ` · ${by.panel ? "you" : whoText(by)}`;
  }

  // ---- editing ----

  /**
   * @param {(string | number)[]} path
   * @param {any} value
   */
  async #edit(path, value) {
    setText(this.#problem, "");
    await this.context.link.ask("edit", { path, value });
  }

  #toggleText() {
    if (this.#back > 0) this.#goTo(0);
    this.#isText = !this.#isText;
    setSign(this.textButton, "braces", this.#isText ? "Back to the tree" : "Edit as JSON");
    this.textButton.setAttribute("aria-pressed", String(this.#isText));
    this.#show();
  }

  // ---- the past ----

  #toggleTravel() {
    this.#travel.hidden = !this.#travel.hidden;
    const isShown = !this.#travel.hidden;
    setSign(this.historyButton, "history", isShown ? "Hide the past" : "Show the past");
    this.historyButton.setAttribute("aria-pressed", String(isShown));
    this.#goTo(0);
  }

  /** @param {number} back */
  #goTo(back) {
    this.#back = Math.max(0, Math.min(back, this.#past.length));
    this.#show();
  }

  #showTravel() {
    const moment = this.#shown;
    this.#slider.max = String(this.#past.length);
    this.#slider.value = String(this.#past.length - this.#back);
    this.#slider.disabled = this.#past.length === 0;
    this.#restore.hidden = this.#back === 0;
    this.#restore.disabled = !this.context.isLive || !moment || !("value" in moment);
    const time = moment ? clockTime(new Date(moment.at * 1000)) : "";
    const changes = moment && moment.changes > 1 ? `, ${countText(moment.changes, "change")}` : "";
    const text = this.#past.length === 0 ? "No change yet" : this.#back === 0 ? "Now" : "";
    setText(this.#when, text || `v${moment?.version} · ${time}${moment ? this.#author(moment) : ""}${changes}`);
    this.#showDifferences(moment);
  }

  /** @param {Moment | null} moment */
  #showDifferences(moment) {
    const isPast = this.#back > 0 && moment !== null && this.#now !== null;
    const found = isPast ? differences(moment.value, this.#now?.value) : [];
    const lines = found.slice(0, DIFFERENCES).map(({ path, before, after }) =>
      h("li", {}, h("code", {}, path), " was ", valueOf(before), ", is ", valueOf(after)),
    );
    const rest = found.length - lines.length;
    if (rest > 0) lines.push(h("li", {}, `and ${countText(rest, "difference")} more`));
    if (isPast && found.length === 0) lines.push(h("li", {}, "The same as now"));
    this.#differences.replaceChildren(...lines);
    this.#differences.hidden = lines.length === 0;
  }

  async #doRestore() {
    const moment = this.#shown;
    if (!moment || !("value" in moment)) return;
    const done = await this.context.act("edit", { path: [], value: moment.value });
    if (done !== undefined) this.#goTo(0);
  }
}

/** @param {any} value */
function valueOf(value) {
  return value === undefined ? h("em", {}, "not there") : h("code", {}, shortened(jsonText(value), 80));
}

/**
 * What is said: a log in both directions, bounded, to be filtered and held still; and a box to say something.
 * @module messages-view
 */
import { bytesText, clockTime, h, shortened } from "../../static/dom.js";
import { hexDump, messageKind } from "../../static/message-log.js";
import { setSign, signButton } from "./icons.js";
import { countText, hint, rateText, setText, whoText } from "./words.js";

/**
 * @typedef {object} Entry
 * @property {number} n
 * @property {number} at
 * @property {"in" | "out" | "all" | "came" | "left" | "gap"} do
 * @property {import("./words.js").Who} [who]
 * @property {"text" | "binary"} [kind]
 * @property {string} [data]
 * @property {number} [size]
 * @property {boolean} [cut]
 * @property {number} [count]
 */

/** @typedef {import("./live-view.js").Context} Context */

const KEPT = 500;
const NEAR_END_PX = 40;
const LINE = 400;
const HISTORY = 50;

const SIGNS = {
  in: ["↓", "received"],
  out: ["↑", "sent to one"],
  all: ["⇈", "broadcast"],
};

const KINDS = [
  ["", "All kinds"],
  ["in", "Received"],
  ["out", "Sent"],
  ["text", "Text"],
  ["json", "JSON"],
  ["binary", "Binary"],
];

/** @param {string} data In base64. */
function bytesOf(data) {
  return Uint8Array.from(atob(data), (char) => char.charCodeAt(0)).buffer;
}

/** @param {Entry} entry */
function kindOfEntry({ kind, data = "", cut }) {
  if (kind === "binary") return "binary";
  if (cut) return /^\s*[[{]/.test(data) ? "json" : "text"; // too long to parse, and it does not matter
  return messageKind(data).kind;
}

/** @param {Entry} entry */
function bodyOf(entry) {
  const { data = "", size = 0, cut } = entry;
  if (entry.kind === "binary") return binaryBody(data, size);
  if (data === "") return h("span", { class: "ja-muted" }, "empty text");
  const isJson = kindOfEntry(entry) === "json";
  const look = isJson ? "ja-message-json" : "ja-message-text";
  if (data.length <= (isJson ? 100 : LINE) && !cut) return h("span", { class: look }, data);
  const full = isJson && !cut ? JSON.stringify(JSON.parse(data), null, 2) : data;
  const rest = cut ? h("p", { class: "ja-muted ja-cut" }, `The start of ${bytesText(size)}`) : null;
  return h(
    "details",
    {},
    h("summary", { class: look }, shortened(data, isJson ? 100 : LINE)),
    h("pre", { class: "ja-code", tabindex: "0" }, full),
    rest,
  );
}

/**
 * @param {string} data
 * @param {number} size
 */
function binaryBody(data, size) {
  const bytes = bytesOf(data);
  const start = [...new Uint8Array(bytes, 0, Math.min(8, bytes.byteLength))];
  const line = start.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  const summary = h("summary", {}, h("code", { class: "ja-message-json" }, line + (size > 8 ? " …" : "")), ` ${bytesText(size)}`);
  return h("details", {}, summary, h("pre", { class: "ja-code ja-hex", tabindex: "0" }, hexDump(bytes)));
}

/**
 * @param {Entry} entry
 * @param {(who: import("./words.js").Who) => void} choose
 */
function lineOf(entry, choose) {
  const time = h("time", { class: "ja-muted" }, clockTime(new Date(entry.at * 1000)));
  if (entry.do === "gap") return h("li", { class: "ja-note" }, h("span", {}, `${entry.count?.toLocaleString("en")} more, not shown`));
  if (entry.do === "came" || entry.do === "left") {
    const verb = entry.do === "came" ? "connected" : "left";
    return h("li", { class: "ja-note" }, h("span", {}, `${whoText(entry.who)} ${verb}`), time);
  }
  const [arrow, word] = SIGNS[entry.do];
  const sign = h("span", { class: "ja-direction", role: "img", "aria-label": word, title: word }, arrow);
  const kind = kindOfEntry(entry);
  const tag = kind === "text" ? null : h("span", { class: "ja-tag" }, kind === "json" ? "JSON" : "binary");
  const body = h("div", { class: "ja-message-body" }, bodyOf(entry));
  const meta = h("div", { class: "ja-message-meta" }, tag, partner(entry, choose), time);
  return h("li", { class: `ja-message ja-${entry.do === "in" ? "in" : "out"}` }, sign, body, meta);
}

/**
 * @param {Entry} entry
 * @param {(who: import("./words.js").Who) => void} choose
 */
function partner({ who, count }, choose) {
  if (!who) return h("span", { class: "ja-muted ja-partner" }, `to ${count}`);
  const label = `Show only ${whoText(who)}`;
  return h("button", { type: "button", class: "ja-partner ja-plain", title: label, onclick: () => choose(who) }, whoText(who));
}

export class MessagesView {
  title = "Messages";
  /** @type {Entry[]} */ #entries = [];
  /** @type {Entry[]} */ #waiting = [];
  /** @type {import("./words.js").Who | null} */ #only = null;
  #isPaused = false;
  #missed = 0;
  #isDrawPlanned = false;
  #list = h("ol", { class: "ja-messages" });
  #empty = hint("Nothing yet. What is received, sent and broadcast appears here.");
  #area = h("div", { class: "ja-scroll", role: "log", "aria-live": "off", tabindex: "0", "aria-label": "Messages" });
  #jump = h("button", { type: "button", class: "ja-jump", hidden: true, onclick: () => this.#toEnd() });
  #rate = h("span", { class: "ja-caption ja-muted" });
  #kind = h("select", { class: "ja-input ja-filter", "aria-label": "Filter messages" });
  #chip = h("button", { type: "button", class: "ja-tag ja-chip", hidden: true, onclick: () => this.#choose(null) });
  #unseen = 0;

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.#kind.append(...KINDS.map(([value, text]) => h("option", { value }, text)));
    this.#kind.addEventListener("change", () => this.#redraw());
    this.pauseButton = signButton("pause", "Pause", () => this.#togglePause(), { "aria-pressed": "false" });
    const clear = signButton("clear", "Clear the log", () => this.#clear());
    this.tools = [this.#rate, this.#chip, this.#kind, this.pauseButton, clear];
    this.#area.append(this.#empty, this.#list);
    this.#area.addEventListener("scroll", () => this.#isAtEnd() && this.#countUnseen(0), { passive: true });
    const log = h("div", { class: "ja-log" }, this.#area, this.#jump);
    this.box = new SendBox(context);
    this.element = h("div", { class: "ja-fill" }, log, this.box.element);
  }

  get badge() {
    return 0;
  }

  /**
   * @param {{ entries: Entry[], skipped: number }} facts
   * @param {boolean} isWhole
   */
  update({ entries, skipped }, isWhole) {
    if (isWhole) this.#clear();
    if (skipped > 0) entries.unshift({ n: 0, at: 0, do: "gap", count: skipped });
    this.#entries.push(...entries);
    this.#entries.splice(0, this.#entries.length - KEPT);
    if (this.#isPaused) {
      this.#missed += entries.length + skipped;
      return this.#showPause();
    }
    this.#waiting.push(...entries);
    return this.#plan();
  }

  refresh() {
    const [received, sent] = this.context.about.rates ?? [0, 0];
    setText(this.#rate, received || sent ? `↓ ${rateText(received)}/s  ↑ ${rateText(sent)}/s` : "");
    this.box.refresh();
  }

  end() {}

  #plan() {
    if (this.#isDrawPlanned) return;
    this.#isDrawPlanned = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#isDrawPlanned = false;
    const follow = this.#isAtEnd();
    const fitting = this.#waiting.splice(0).slice(-KEPT).filter((entry) => this.#fits(entry));
    this.#list.append(...fitting.map((entry) => lineOf(entry, (who) => this.#choose(who))));
    while (this.#list.childElementCount > KEPT) this.#list.firstElementChild?.remove();
    this.#empty.hidden = this.#list.childElementCount > 0;
    setText(this.#empty, this.#entries.length > 0 ? "No message fits the filter." : "Nothing yet. What is received, sent and broadcast appears here.");
    if (follow) this.#toEnd();
    else this.#countUnseen(this.#unseen + fitting.length);
  }

  /** @param {Entry} entry */
  #fits(entry) {
    const wanted = this.#kind.value;
    if (this.#only && entry.who?.n !== this.#only.n && entry.do !== "all") return false;
    if (!wanted) return true;
    if (wanted === "in") return entry.do === "in";
    if (wanted === "out") return entry.do === "out" || entry.do === "all";
    return entry.kind !== undefined && kindOfEntry(entry) === wanted;
  }

  #redraw() {
    this.#list.replaceChildren();
    this.#waiting = [...this.#entries];
    this.#countUnseen(0);
    this.#plan();
  }

  /** @param {import("./words.js").Who | null} who */
  #choose(who) {
    this.#only = who;
    this.#chip.hidden = !who;
    setText(this.#chip, who ? `${whoText(who)} ×` : "");
    this.#chip.title = "Show all connections again";
    this.#redraw();
  }

  #togglePause() {
    this.#isPaused = !this.#isPaused;
    this.#missed = 0;
    this.pauseButton.setAttribute("aria-pressed", String(this.#isPaused));
    this.#showPause();
    if (!this.#isPaused) this.#redraw();
  }

  #showPause() {
    const missed = this.#missed > 0 ? `, ${countText(this.#missed, "message")} came meanwhile` : "";
    setSign(this.pauseButton, this.#isPaused ? "play" : "pause", this.#isPaused ? `Go on${missed}` : "Pause");
    this.#jump.hidden = !this.#isPaused;
    if (this.#isPaused) setText(this.#jump, `Paused${this.#missed ? ` · ${this.#missed} new` : ""}`);
  }

  #clear() {
    this.#entries = [];
    this.#waiting = [];
    this.#list.replaceChildren();
    this.#countUnseen(0);
    this.#plan();
  }

  #isAtEnd() {
    return this.#area.scrollHeight - this.#area.scrollTop - this.#area.clientHeight < NEAR_END_PX;
  }

  #toEnd() {
    if (this.#isPaused) this.#togglePause();
    this.#area.scrollTop = this.#area.scrollHeight;
    this.#countUnseen(0);
  }

  /** @param {number} count */
  #countUnseen(count) {
    if (this.#isPaused) return;
    this.#unseen = Math.min(count, KEPT);
    this.#jump.hidden = this.#unseen === 0;
    setText(this.#jump, `${this.#unseen} new ↓`);
  }
}

/** A line to say something to everyone, or to one connection; arrow up brings back what was said. */
class SendBox {
  #to = h("select", { class: "ja-input ja-to", "aria-label": "Send to" });
  #text = h("input", { class: "ja-input", "aria-label": "Message", placeholder: "Say something to everyone", autocomplete: "off", spellcheck: "false" });
  #problem = h("p", { class: "ja-problem", role: "alert" });
  /** @type {string[]} */ #said = [];
  #at = 0;
  #known = "";

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    const send = h("button", { type: "submit", class: "ja-button ja-primary" }, "Send");
    const onsubmit = (/** @type {Event} */ event) => {
      event.preventDefault();
      void this.#send();
    };
    this.#text.addEventListener("keydown", (event) => this.#recall(event));
    this.#to.addEventListener("change", () => this.#showAim());
    this.element = h("form", { class: "ja-send", onsubmit }, this.#to, this.#text, send, this.#problem);
    this.#to.hidden = true;
  }

  refresh() {
    const choices = this.context.choices();
    const known = JSON.stringify(choices.map(({ n }) => n));
    if (known === this.#known) return;
    this.#known = known;
    const chosen = this.#to.value;
    const options = choices.map((who) => h("option", { value: who.n }, whoText(who)));
    this.#to.replaceChildren(h("option", { value: "" }, "Everyone"), ...options);
    this.#to.value = chosen;
    if (this.#to.selectedIndex < 0) this.#to.value = "";
    this.#to.hidden = choices.length === 0;
    this.#showAim();
  }

  #showAim() {
    const name = this.#to.value ? this.#to.selectedOptions[0].text : "everyone";
    this.#text.placeholder = `Say something to ${name}`;
  }

  async #send() {
    const text = this.#text.value;
    const to = this.#to.value ? Number(this.#to.value) : null;
    setText(this.#problem, "");
    try {
      await this.context.link.ask("send", { text, to });
      this.#said.push(text);
      this.#said.splice(0, this.#said.length - HISTORY);
      this.#at = this.#said.length;
      this.#text.value = "";
    } catch (error) {
      setText(this.#problem, /** @type {Error} */ (error).message);
    }
  }

  /** @param {KeyboardEvent} event */
  #recall({ key }) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[key];
    if (!step || this.#said.length === 0) return;
    this.#at = Math.max(0, Math.min(this.#said.length, this.#at + step));
    this.#text.value = this.#said[this.#at] ?? "";
  }
}

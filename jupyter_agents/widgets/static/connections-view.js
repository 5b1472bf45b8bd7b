/**
 * Who is connected: a table, newest first, that draws only the rows in sight.
 * @module connections-view
 */
import { bytesText, durationText, h } from "../../static/dom.js";
import { setSign, signButton } from "./icons.js";
import { askServer } from "./link.js";
import { agoText, countText, hint, setText, shortId } from "./words.js";

/**
 * @typedef {object} Row
 * @property {number} n
 * @property {string} id
 * @property {string} user
 * @property {string} ip
 * @property {number | null} since
 * @property {string[]} tags
 * @property {boolean} readonly
 * @property {boolean} accepted
 * @property {number[]} counts messages in, out, bytes in, out.
 * @property {{ queue: number, trip: number | null }} [wire] As the server sees it.
 */

/** @typedef {import("./live-view.js").Context} Context */

const ROW_PX = 28;
const SPARE_ROWS = 6;
const POLL_MS = 3000;
const SOON_MS = 300;

const HEADINGS = [
  ["Connection", "ja-col-who"],
  ["For", "ja-col-time"],
  ["Received", "ja-col-number"],
  ["Sent", "ja-col-number"],
  ["Queue", "ja-col-number ja-col-wire"],
  ["Round trip", "ja-col-number ja-col-wire"],
];

/** One row's elements, which stay as long as it is in sight. */
class Line {
  #cells;
  #lock;

  /**
   * @param {ConnectionsView} view
   * @param {Row} row
   */
  constructor(view, row) {
    this.#cells = HEADINGS.map(([, look]) => h("td", { class: look }));
    this.#lock = signButton("unlock", "", () => view.toggleReadonly(row));
    const close = signButton("close", `Close ${row.id}`, () => view.close(row));
    const actions = h("td", { class: "ja-col-actions" }, this.#lock, close);
    const onclick = (/** @type {Event} */ event) => {
      if (!(/** @type {Element} */ (event.target).closest("button"))) void view.look(row);
    };
    this.element = h("tr", { onclick }, ...this.#cells, actions);
    this.name = h("button", { type: "button", class: "ja-name", onclick: () => void view.look(row) });
    this.#cells[0].append(this.name);
    this.update(row);
  }

  /** @param {Row} row */
  update(row) {
    const [received, sent, bytesIn, bytesOut] = row.counts;
    const texts = [
      row.since ? agoText(row.since) : "–",
      received.toLocaleString("en"),
      sent.toLocaleString("en"),
      row.wire ? bytesText(row.wire.queue) : "–",
      row.wire?.trip ? durationText(row.wire.trip * 1000) : "–",
    ];
    texts.forEach((text, index) => setText(this.#cells[index + 1], text));
    this.#cells[2].title = bytesText(bytesIn);
    this.#cells[3].title = bytesText(bytesOut);
    this.#showName(row);
    const verb = row.readonly ? "Let write" : "Make read-only";
    setSign(this.#lock, row.readonly ? "lock" : "unlock", `${verb}: ${row.id}`);
    this.#lock.setAttribute("aria-pressed", String(row.readonly));
  }

  /** @param {Row} row */
  #showName({ id, user, tags, readonly, accepted }) {
    const key = JSON.stringify([id, user, tags, readonly, accepted]);
    if (this.name.dataset.key === key) return;
    this.name.dataset.key = key;
    this.name.title = id;
    this.name.replaceChildren(user || shortId(id), ...(user ? [h("code", {}, shortId(id))] : []));
    const chips = [...tags, ...(readonly ? ["read-only"] : []), ...(accepted ? [] : ["connecting"])];
    this.#cells[0].replaceChildren(this.name, ...chips.map((chip) => h("span", { class: "ja-tag" }, chip)));
  }
}

export class ConnectionsView {
  title = "Connections";
  /** @type {Map<number, Row>} */ #rows = new Map();
  /** @type {Map<number, Line>} */ #lines = new Map();
  /** @type {Row[]} */ #order = [];
  #total = 0;
  #looked = -1;
  #above = h("tr", { class: "ja-space" }, h("td"));
  #below = h("tr", { class: "ja-space" }, h("td"));
  #body = h("tbody");
  #details = h("div", { class: "ja-details", hidden: true });
  #empty = h("div", { class: "ja-empty" });
  #filter = h("input", { class: "ja-input ja-filter", type: "search", placeholder: "Filter", "aria-label": "Filter connections" });
  #note = h("p", { class: "ja-table-note ja-muted", hidden: true });
  #isDrawPlanned = false;
  #polling;
  #soon = 0;
  #polledAt = 0;

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    const headings = HEADINGS.map(([text, look]) => h("th", { scope: "col", class: look }, text));
    const actions = h("th", { scope: "col", class: "ja-col-actions" }, h("span", { class: "ja-unseen" }, "Actions"));
    const head = h("thead", {}, h("tr", {}, ...headings, actions));
    const caption = h("caption", { class: "ja-unseen" }, "Connections, newest first");
    this.table = h("table", { class: "ja-table" }, caption, head, this.#body);
    this.area = h("div", { class: "ja-scroll", tabindex: "0", role: "group", "aria-label": "Connections" }, this.table);
    this.element = h("div", { class: "ja-fill" }, this.area, this.#empty, this.#note, this.#details);
    this.tools = [this.#filter];
    this.area.addEventListener("scroll", () => this.#plan(), { passive: true });
    this.#filter.addEventListener("input", () => this.#sort());
    this.#polling = setInterval(() => void this.#poll(), POLL_MS);
    new ResizeObserver(() => this.#plan()).observe(this.area);
    this.#sort();
  }

  get badge() {
    return this.#total;
  }

  /** The connections a message can be sent to. */
  get choices() {
    return [...this.#rows.values()].slice(-50).reverse();
  }

  /**
   * @param {{ total: number, rows: Row[], counts?: number[][], gone?: number[] }} facts
   * @param {boolean} isWhole
   */
  update({ total, rows, counts = [], gone = [] }, isWhole) {
    this.#total = total;
    const before = this.#rows;
    if (isWhole) this.#rows = new Map();
    for (const row of rows) this.#rows.set(row.n, { ...row, wire: before.get(row.n)?.wire });
    for (const [n, ...numbers] of counts) {
      const row = this.#rows.get(n);
      if (row) row.counts = numbers.map((number, index) => Math.max(number, row.counts[index]));
    }
    for (const n of gone) this.#rows.delete(n);
    this.#pollSoon();
    if (isWhole || rows.length > 0 || gone.length > 0) this.#sort();
    else this.#plan();
  }

  end() {
    clearInterval(this.#polling);
    clearTimeout(this.#soon);
  }

  refresh() {
    this.#plan();
  }

  #sort() {
    const words = this.#filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (/** @type {Row} */ row) => {
      const text = [row.id, row.user, row.ip, ...row.tags, row.readonly ? "read-only" : ""].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    };
    this.#order = [...this.#rows.values()].filter(fits).reverse();
    this.#plan();
  }

  #plan() {
    if (this.#isDrawPlanned) return;
    this.#isDrawPlanned = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#isDrawPlanned = false;
    this.#showEmpty();
    const first = Math.max(0, Math.floor(this.area.scrollTop / ROW_PX) - SPARE_ROWS);
    const count = Math.ceil((this.area.clientHeight || 300) / ROW_PX) + 2 * SPARE_ROWS;
    const seen = this.#order.slice(first, first + count);
    this.#above.style.height = `${first * ROW_PX}px`;
    this.#below.style.height = `${Math.max(0, this.#order.length - first - seen.length) * ROW_PX}px`;
    const lines = seen.map((row) => this.#line(row));
    for (const [n, line] of this.#lines) if (!lines.includes(line)) this.#lines.delete(n);
    const wanted = [this.#above, ...lines.map((line) => line.element), this.#below];
    const present = this.#body.children;
    const isSame = present.length === wanted.length && wanted.every((element, index) => present[index] === element);
    if (!isSame) this.#body.replaceChildren(...wanted); // else the focus would be lost
  }

  /** @param {Row} row */
  #line(row) {
    const known = this.#lines.get(row.n);
    if (known) known.update(row);
    const line = known ?? new Line(this, row);
    line.element.classList.toggle("ja-chosen", row.n === this.#looked);
    line.name.setAttribute("aria-expanded", String(row.n === this.#looked));
    this.#lines.set(row.n, line);
    return line;
  }

  #showEmpty() {
    const isEmpty = this.#order.length === 0;
    this.area.hidden = isEmpty;
    this.#empty.hidden = !isEmpty;
    const key = this.#rows.size > 0 ? "none fit" : this.context.pageUrl();
    if (isEmpty && this.#empty.dataset.key !== key) {
      this.#empty.dataset.key = key;
      this.#empty.replaceChildren(this.#rows.size > 0 ? hint("No connection fits the filter.") : this.#nobody());
    }
    const more = this.#total - this.#rows.size;
    this.#note.hidden = more <= 0;
    setText(this.#note, `The newest ${countText(this.#rows.size, "connection")}; ${more.toLocaleString("en")} more`);
  }

  #nobody() {
    const link = h("a", { href: this.context.pageUrl(), target: "_blank", rel: "noopener" }, "Open its page");
    return hint("No connections yet. ", link, " to be the first, or connect a client to the address above.");
  }

  // ---- what a person does ----

  /** @param {Row} row */
  async close(row) {
    const { path } = this.context.about;
    const done = await askServer("POST", `api/${path}/close`, { id: row.id, reason: "Closed in the notebook" });
    if (!done) await this.context.act("close", { n: row.n, reason: "Closed in the notebook" });
  }

  /** @param {Row} row */
  async toggleReadonly(row) {
    const readonly = !(this.#rows.get(row.n) ?? row).readonly;
    const { path } = this.context.about;
    const done = await askServer("POST", `api/${path}/readonly`, { id: row.id, readonly });
    if (!done) await this.context.act("readonly", { n: row.n, readonly });
  }

  /** @param {Row} row Show or hide more about it. */
  async look(row) {
    this.context.show("connections"); // an overview has no room for details
    this.#looked = this.#looked === row.n ? -1 : row.n;
    this.#details.hidden = this.#looked < 0;
    this.#plan();
    if (this.#looked < 0) return;
    this.#details.replaceChildren(this.#about(row, null));
    const facts = await this.context.act("connection", { n: row.n });
    if (facts && this.#looked === row.n) this.#details.replaceChildren(this.#about(row, facts));
  }

  /**
   * @param {Row} row
   * @param {{ uri: string, agent: string, state: string | null, protocol: boolean } | null} facts
   */
  #about(row, facts) {
    const lines = [
      ["Id", row.id],
      ["User", row.user || "unknown"],
      ["From", row.ip],
      ["Opened", row.since ? new Date(row.since * 1000).toLocaleTimeString("en-GB") : "–"],
      ["Data", `${bytesText(row.counts[2])} in, ${bytesText(row.counts[3])} out`],
      ["URL", facts?.uri ?? "…"],
      ["Client", facts?.agent || "–"],
      ["Its state", facts?.state ?? "none"],
    ];
    const close = signButton("close", "Hide the details", () => void this.look(row));
    return h("dl", {}, close, ...lines.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]));
  }

  /** Something happened: the server's numbers are different, too, soon. */
  #pollSoon() {
    const wait = Math.max(SOON_MS, this.#polledAt + 1000 - performance.now());
    this.#soon ||= setTimeout(() => {
      this.#soon = 0;
      void this.#poll();
    }, wait);
  }

  /** What only the server knows: queues, round trips, and what really went over the wire. */
  async #poll() {
    this.#polledAt = performance.now();
    if (document.hidden || this.#rows.size === 0 || !this.area.offsetParent || !this.context.isLive) return;
    const answer = await askServer("GET", `api/${this.context.about.path}`);
    const byId = new Map((answer?.connections ?? []).map((/** @type {any} */ one) => [one.id, one]));
    for (const row of this.#rows.values()) {
      const wire = /** @type {any} */ (byId.get(row.id));
      if (!wire) continue;
      row.wire = { queue: wire.queued_bytes, trip: wire.round_trip_s };
      const numbers = [wire.messages_in, wire.messages_out, wire.bytes_in, wire.bytes_out];
      row.counts = row.counts.map((number, index) => Math.max(number, numbers[index]));
    }
    if (byId.size > 0) this.table.classList.add("ja-has-wire");
    this.#plan();
  }
}

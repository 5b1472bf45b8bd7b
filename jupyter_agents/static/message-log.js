/**
 * Messages as they come and go: text, JSON and binary told apart, the newest at the end.
 *
 * Bounded: the oldest entries leave. Many messages at once are shown once per frame. Who has scrolled up to read is
 * left in peace and told how many are new.
 * @module message-log
 */
import { bytesText, clockTime, h, shortened } from "./dom.js";

/**
 * @typedef {object} LogEntry
 * @property {"in" | "out" | "note"} direction
 * @property {string | ArrayBuffer} data
 * @property {Date} [time]
 * @property {boolean} [isWaiting] It could not be sent yet.
 */

/**
 * @typedef {object} MessageLogProps
 * @property {number} [limit] Entries kept; 500.
 * @property {string} [hint] Shown while there is nothing.
 */

const HEX_BYTES = 512;
const LINE_LIMIT = 400;
const NEAR_END_PX = 48;

/**
 * What a message is: binary, JSON (objects and lists only; a bare number is a text), or text.
 * @param {string | ArrayBuffer} data
 * @returns {{ kind: "text" | "json" | "binary", value?: any }}
 */
export function messageKind(data) {
  if (typeof data !== "string") return { kind: "binary" };
  if (!/^\s*[[{]/.test(data)) return { kind: "text" };
  try {
    return { kind: "json", value: JSON.parse(data) };
  } catch {
    return { kind: "text" };
  }
}

/**
 * A hex dump, sixteen bytes a line, with the printable characters beside.
 * @param {ArrayBuffer} data
 * @param {number} [limit]
 */
export function hexDump(data, limit = HEX_BYTES) {
  const bytes = new Uint8Array(data, 0, Math.min(limit, data.byteLength));
  const lines = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.subarray(at, at + 16)];
    const hex = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${hex.padEnd(47)}  ${text}`);
  }
  if (bytes.length < data.byteLength) lines.push(`… ${bytesText(data.byteLength - bytes.length)} more`);
  return lines.join("\n");
}

/** @param {ArrayBuffer} data */
function download(data) {
  const url = URL.createObjectURL(new Blob([data]));
  h("a", { href: url, download: "message.bin" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** @param {LogEntry} entry */
function renderBody({ data }) {
  const { kind, value } = messageKind(data);
  if (kind === "binary") return renderBinary(/** @type {ArrayBuffer} */ (data));
  const text = /** @type {string} */ (data);
  if (kind === "json") return renderJson(value);
  if (text === "") return h("span", { class: "ja-message-text ja-muted" }, "empty text");
  if (text.length <= LINE_LIMIT) return h("span", { class: "ja-message-text" }, text);
  const short = h("summary", { class: "ja-message-text" }, shortened(text, LINE_LIMIT));
  return h("details", {}, short, h("pre", { class: "ja-code" }, text));
}

/** @param {any} value */
function renderJson(value) {
  const line = JSON.stringify(value);
  if (line.length <= 80) return h("code", { class: "ja-message-json" }, line);
  const short = h("summary", {}, h("code", { class: "ja-message-json" }, shortened(line, 120)));
  return h("details", {}, short, h("pre", { class: "ja-code" }, JSON.stringify(value, null, 2)));
}

/** @param {ArrayBuffer} data */
function renderBinary(data) {
  const size = bytesText(data.byteLength);
  if (data.byteLength === 0) return h("span", { class: "ja-message-text ja-muted" }, "empty binary");
  const start = hexDump(data, 12).split("  ")[1].trim();
  const short = h(
    "summary",
    {},
    h("code", { class: "ja-message-json" }, `${start}${data.byteLength > 12 ? " …" : ""}`),
    ` ${size}`,
  );
  const save = h("button", { type: "button", class: "ja-link", onclick: () => download(data) }, `Save ${size}`);
  return h("details", {}, short, h("pre", { class: "ja-code ja-hex", tabindex: "0" }, hexDump(data)), save);
}

const ARROWS = { in: ["↓", "received"], out: ["↑", "sent"] };

/** @param {LogEntry} entry */
function renderEntry(entry) {
  const time = h("time", { class: "ja-muted" }, clockTime(entry.time));
  if (entry.direction === "note") {
    return h("li", { class: "ja-note" }, h("span", {}, /** @type {string} */ (entry.data)), time);
  }
  const [arrow, word] = ARROWS[entry.direction];
  const sign = h("span", { class: "ja-direction", role: "img", "aria-label": word, title: word }, arrow);
  const { kind } = messageKind(entry.data);
  const tag =
    kind === "text" ? null : h("span", { class: `ja-tag ja-tag-${kind}` }, kind === "json" ? "JSON" : "binary");
  const waits = entry.isWaiting ? h("span", { class: "ja-tag" }, "waits for the connection") : null;
  const body = h("div", { class: "ja-message-body" }, renderBody(entry));
  const meta = h("div", { class: "ja-message-meta" }, waits, tag, time);
  return h("li", { class: `ja-message ja-${entry.direction}` }, sign, body, meta);
}

/**
 * Show a log in `element`.
 * @param {HTMLElement} element
 * @param {MessageLogProps} [props]
 */
export function mountMessageLog(element, props = {}) {
  let { limit = 500, hint = "Nothing yet. What the agent sends appears here." } = props;
  /** @type {LogEntry[]} */
  let waiting = [];
  let unseen = 0;
  let isScheduled = false;
  const empty = h("p", { class: "ja-hint" }, hint);
  const list = h("ol", { class: "ja-messages" });
  const area = h("div", { class: "ja-log-area", role: "log", tabindex: "0", "aria-label": "Messages" }, empty, list);
  const jump = h("button", { type: "button", class: "ja-jump", hidden: true, onclick: () => toEnd() });
  element.replaceChildren(h("div", { class: "ja-log" }, area, jump));

  const isAtEnd = () => area.scrollHeight - area.scrollTop - area.clientHeight < NEAR_END_PX;
  const toEnd = () => {
    area.scrollTop = area.scrollHeight;
    countUnseen(0);
  };
  const countUnseen = (/** @type {number} */ count) => {
    unseen = count;
    jump.hidden = count === 0;
    jump.textContent = `${count} new ↓`;
  };
  const flush = () => {
    isScheduled = false;
    const follow = isAtEnd();
    const count = waiting.length;
    list.append(...waiting.splice(0).map(renderEntry));
    while (list.childElementCount > limit) list.firstElementChild?.remove();
    empty.hidden = list.childElementCount > 0;
    if (follow) toEnd();
    else countUnseen(Math.min(limit, unseen + count));
  };
  area.addEventListener("scroll", () => isAtEnd() && countUnseen(0), { passive: true });

  return {
    /** @param {LogEntry} entry */
    add(entry) {
      waiting.push({ time: new Date(), ...entry });
      if (waiting.length > limit) waiting.shift();
      if (isScheduled) return;
      isScheduled = true;
      requestAnimationFrame(flush);
    },
    clear() {
      waiting = [];
      list.replaceChildren();
      empty.hidden = false;
      countUnseen(0);
    },
    /** @param {Partial<MessageLogProps>} changes */
    update(changes) {
      limit = changes.limit ?? limit;
      hint = changes.hint ?? hint;
      empty.textContent = hint;
    },
    destroy() {
      waiting = [];
      element.replaceChildren();
    },
  };
}

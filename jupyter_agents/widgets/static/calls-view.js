/**
 * What can be called, as forms; and what is and was called, with how long it took.
 * @module calls-view
 */
import { mountCallForm } from "../../static/call-form.js";
import { clockTime, durationText, h } from "../../static/dom.js";
import { signButton } from "./icons.js";
import { hint, setText, whoText } from "./words.js";

/**
 * @typedef {object} Call
 * @property {number} n
 * @property {number} at
 * @property {import("./words.js").Who | null} who
 * @property {string} method
 * @property {string} args
 * @property {number} [seconds]
 * @property {string} [error]
 */

/** @typedef {import("./live-view.js").Context} Context */
/** @typedef {import("../../static/call-form.js").Callable} Callable */

const KEPT = 100;
const SCROLLS = { tabindex: "0", role: "group" };

/** One call's line. */
class CallLine {
  #outcome = h("span", { class: "ja-call-outcome" });
  #error = h("p", { class: "ja-problem" });

  /**
   * @param {Call} call
   * @param {(call: Call) => void} cancel
   */
  constructor(call, cancel) {
    this.call = call;
    const name = h("code", { class: "ja-call-name" }, call.method, h("span", { class: "ja-muted" }, `(${call.args})`));
    const by = h("span", { class: "ja-muted ja-partner" }, call.who ? whoText(call.who) : "you");
    const time = h("time", { class: "ja-muted" }, clockTime(new Date(call.at * 1000)));
    this.cancel = signButton("close", `Cancel ${call.method}`, () => cancel(this.call));
    this.element = h("li", { class: "ja-call-line" }, name, this.#outcome, this.cancel, by, time, this.#error);
    this.update(call);
  }

  /** @param {Call} call */
  update(call) {
    this.call = call;
    const isRunning = call.seconds === undefined;
    this.element.dataset.look = isRunning ? "running" : call.error ? "failed" : "done";
    this.cancel.hidden = !isRunning;
    setText(this.#error, call.error ?? "");
    this.refresh();
  }

  refresh() {
    const { seconds, at } = this.call;
    const spent = seconds ?? Math.max(0, Date.now() / 1000 - at);
    const text = spent > 0 && spent < 0.001 ? "< 1 ms" : durationText(spent * 1000);
    setText(this.#outcome, seconds === undefined ? `running, ${text}` : text);
  }
}

export class CallsView {
  title = "Calls";
  /** @type {Map<string, { element: HTMLElement, form: ReturnType<typeof mountCallForm> }>} */ #forms = new Map();
  /** @type {Map<number, CallLine>} */ #lines = new Map();
  #formsPlace = h("div", { class: "ja-forms", ...SCROLLS, "aria-label": "Methods" });
  #list = h("ol", { class: "ja-call-lines" });
  #empty = hint("No call yet.");

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    /** @type {Node[]} */ this.tools = [];
    const title = h("h4", { class: "ja-subtitle" }, "Newest calls");
    const recent = h("div", { class: "ja-recent", ...SCROLLS, "aria-label": "Newest calls" }, title, this.#empty, this.#list);
    const columns = h("div", { class: "ja-calls" }, this.#formsPlace, recent);
    this.element = h("div", { class: "ja-fill" }, columns);
  }

  /** How many calls run. */
  get badge() {
    return [...this.#lines.values()].filter(({ call }) => call.seconds === undefined).length;
  }

  /**
   * @param {{ callables?: Callable[], calls?: Call[] }} facts
   * @param {boolean} isWhole
   */
  update({ callables, calls = [] }, isWhole) {
    if (callables) this.#showForms(callables);
    if (isWhole) {
      this.#lines.clear();
      this.#list.replaceChildren();
    }
    for (const call of calls) this.#showCall(call);
    this.#empty.hidden = this.#lines.size > 0;
  }

  refresh() {
    for (const line of this.#lines.values()) if (line.call.seconds === undefined) line.refresh();
  }

  end() {
    for (const { form } of this.#forms.values()) form.destroy();
  }

  /** @param {Call} call */
  #showCall(call) {
    const known = this.#lines.get(call.n);
    if (known) return known.update(call);
    const line = new CallLine(call, ({ n }) => void this.context.act("cancel", { n }));
    this.#lines.set(call.n, line);
    this.#list.prepend(line.element);
    if (this.#lines.size <= KEPT) return undefined;
    const [oldest, gone] = /** @type {[number, CallLine]} */ (this.#lines.entries().next().value);
    this.#lines.delete(oldest);
    return gone.element.remove();
  }

  /** @param {Callable[]} callables */
  #showForms(callables) {
    for (const [name, { form }] of this.#forms) {
      if (callables.some((one) => one.name === name)) continue;
      form.destroy();
      this.#forms.delete(name);
    }
    const elements = callables.map((callable) => this.#form(callable, callables.length === 1));
    const nothing = hint("No method can be called. Mark one with ", h("code", {}, "@callable_method"), ".");
    this.#formsPlace.replaceChildren(...(elements.length > 0 ? elements : [nothing]));
  }

  /**
   * @param {Callable} callable
   * @param {boolean} open
   */
  #form(callable, open) {
    const known = this.#forms.get(callable.name);
    if (known) {
      known.form.update({ callable });
      return known.element;
    }
    /** @type {import("../../static/call-form.js").CallFormProps["call"]} */
    const call = (method, args, options) => this.#call(method, args, options);
    const element = h("div");
    this.#forms.set(callable.name, { element, form: mountCallForm(element, { callable, call, open }) });
    return element;
  }

  /**
   * @param {string} method
   * @param {any[]} args
   * @param {{ signal: AbortSignal, onChunk: (chunk: any) => void }} options
   */
  async #call(method, args, options) {
    const value = await this.context.link.ask("call", { method, args }, options);
    return value ?? undefined;
  }
}

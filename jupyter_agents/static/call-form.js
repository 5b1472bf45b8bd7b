/**
 * One callable method as a form: a field per parameter, and below it the result, or the stream as it comes.
 * @module call-form
 */
import { durationText, h, jsonText, looseValue } from "./dom.js";

/**
 * A parameter as the agent describes it. Whatever is missing is taken for "any JSON".
 * @typedef {object} Parameter
 * @property {string} name
 * @property {string} [type] `str`, `int`, `float`, `bool`, `enum` or `json`.
 * @property {boolean} [required]
 * @property {boolean} [nullable] Null is fine; an empty field stands for it.
 * @property {boolean} [variadic] Any number of values.
 * @property {string} [doc]
 * @property {any} [default]
 * @property {any[]} [choices]
 * @property {number} [min]
 * @property {number} [max]
 */

/**
 * @typedef {object} Callable
 * @property {string} name Empty: the user says which method.
 * @property {string} [description]
 * @property {boolean} [streaming]
 * @property {Parameter[]} [parameters] Left out: nothing is known, so arguments are written as a JSON list.
 */

/**
 * @typedef {object} CallFormProps
 * @property {Callable} callable
 * @property {(method: string, args: any[], options: { signal: AbortSignal, onChunk: (chunk: any) => void }) => Promise<any>} call
 * @property {boolean} [open]
 */

/** @typedef {{ element: HTMLElement, read: () => any, isEmpty: () => boolean }} Field */

const CHUNK_LIMIT = 2000; // shown chunks; the oldest leave
const ANY = { name: "", type: "any" };

/** @param {Parameter} parameter */
function isRequired({ required, variadic, default: standard }) {
  return !variadic && (required ?? standard === undefined);
}

/**
 * The arguments, in order: what was left empty at the end is left out, in between its default or null stands for it.
 * @param {Parameter[]} parameters
 * @param {Field[]} fields
 */
export function readArguments(parameters, fields) {
  const values = fields.map((field, index) => {
    if (!field.isEmpty()) return field.read();
    return parameters[index].default ?? null;
  });
  const lastFilled = fields.reduce(
    (last, field, index) => (field.isEmpty() && !isRequired(parameters[index]) ? last : index),
    -1,
  );
  return values.slice(0, lastFilled + 1).flatMap((value, index) => (parameters[index].variadic ? value : [value]));
}

/**
 * @param {Parameter} parameter
 * @param {string} id
 * @returns {Field}
 */
function makeField(parameter, id) {
  if (parameter.variadic) return variadicField(id);
  if (parameter.choices?.length) return choiceField(parameter, id);
  const kind = (parameter.type ?? "").toLowerCase();
  if (/^(bool|boolean)$/.test(kind)) return boolField(parameter, id);
  if (/^(int|integer|float|number)$/.test(kind)) return numberField(parameter, id, kind.startsWith("int"));
  return textField(parameter, id, /^(str|string)$/.test(kind));
}

/**
 * @param {Parameter} parameter
 * @param {string} id
 * @returns {Field}
 */
function choiceField(parameter, id) {
  const choices = /** @type {any[]} */ (parameter.choices);
  const isOptional = !isRequired(parameter);
  const select = h("select", { id, class: "ja-input" }, isOptional && h("option", { value: "" }, "default"));
  choices.forEach((choice, index) => {
    const text = typeof choice === "string" ? choice : JSON.stringify(choice);
    select.append(h("option", { value: index, selected: choice === parameter.default }, text));
  });
  return { element: select, read: () => choices[Number(select.value)], isEmpty: () => select.value === "" };
}

/**
 * @param {Parameter} parameter
 * @param {string} id
 * @returns {Field}
 */
function boolField(parameter, id) {
  const box = h("input", { id, type: "checkbox", checked: parameter.default === true });
  const standard = parameter.default === true;
  return { element: box, read: () => box.checked, isEmpty: () => !isRequired(parameter) && box.checked === standard };
}

/**
 * @param {Parameter} parameter
 * @param {string} id
 * @param {boolean} isWhole
 * @returns {Field}
 */
function numberField(parameter, id, isWhole) {
  const limits = { min: parameter.min, max: parameter.max, step: isWhole ? 1 : "any" };
  const input = h("input", { ...inputProps(parameter, id), ...limits, type: "number" });
  return { element: input, read: () => input.valueAsNumber, isEmpty: () => input.value === "" };
}

/**
 * @param {Parameter} parameter
 * @param {string} id
 * @param {boolean} isText False: JSON, and what is not JSON is a text.
 * @returns {Field}
 */
function textField(parameter, id, isText) {
  const input = h("input", { ...inputProps(parameter, id), type: "text", spellcheck: "false", autocomplete: "off" });
  const mayBeEmptyText = isText && isRequired(parameter) && !parameter.nullable;
  const isLeftOut = () => input.value === "" && !mayBeEmptyText;
  if (isText) input.required = false; // an empty text is a text
  return { element: input, read: () => (isText ? input.value : looseValue(input.value)), isEmpty: isLeftOut };
}

/**
 * @param {string} id
 * @returns {Field}
 */
function variadicField(id) {
  const { element, read } = listField(id);
  return { element, read, isEmpty: () => element.value.trim() === "" };
}

/**
 * @param {Parameter} parameter
 * @param {string} id
 */
function inputProps(parameter, id) {
  const standard = parameter.default;
  const placeholder =
    standard === undefined || standard === null ? (parameter.type ?? "any") : JSON.stringify(standard);
  return { id, class: "ja-input", placeholder, required: isRequired(parameter) && !parameter.nullable };
}

/** A field for a whole list of arguments, where the agent tells nothing of its parameters. */
function listField(/** @type {string} */ id) {
  const input = h("input", { id, class: "ja-input", type: "text", placeholder: '["text", 1]', spellcheck: "false" });
  const read = () => {
    const value = input.value.trim() === "" ? [] : JSON.parse(input.value);
    return Array.isArray(value) ? value : [value];
  };
  return { element: input, read };
}

/** A field for the method's name. */
function methodField(/** @type {string} */ id) {
  const input = h("input", { id, class: "ja-input", type: "text", required: true, spellcheck: "false" });
  const field = { element: input, read: () => input.value, isEmpty: () => false };
  return { row: labelled({ name: "method", type: "name" }, field, id), read: field.read };
}

/** Where results, chunks and errors appear. */
class Output {
  #chunks = h("div", { class: "ja-chunks" });
  #status = h("p", { class: "ja-call-status", role: "status" });
  #result = h("pre", { class: "ja-code ja-result", tabindex: "0" });
  element = h("div", { class: "ja-output", hidden: true }, this.#chunks, this.#result, this.#status);
  #count = 0;

  start() {
    this.#count = 0;
    this.element.hidden = false;
    this.#chunks.replaceChildren();
    this.#result.hidden = true;
    this.#say("", "Running…");
  }

  /** @param {any} chunk Texts run on, as in a chat; other values get a line each. */
  chunk(chunk) {
    this.#count += 1;
    const isText = typeof chunk === "string";
    this.#chunks.append(h("span", { class: isText ? "ja-chunk-text" : "ja-chunk" }, isText ? chunk : jsonText(chunk)));
    if (this.#chunks.childElementCount > CHUNK_LIMIT) this.#chunks.firstElementChild?.remove();
    this.#chunks.scrollTop = this.#chunks.scrollHeight;
    this.#say("", `Running… ${this.#count} ${this.#count === 1 ? "chunk" : "chunks"}`);
  }

  /**
   * @param {any} value
   * @param {number} duration
   */
  done(value, duration) {
    const chunks = this.#count > 0 ? `${this.#count} ${this.#count === 1 ? "chunk" : "chunks"}, ` : "";
    this.#result.hidden = value === undefined;
    this.#result.textContent = jsonText(value);
    const what = value === undefined && this.#count === 0 ? "No result, " : "";
    this.#say("ja-good", `${what}${chunks}${durationText(duration)}`);
  }

  /** @param {unknown} error */
  failed(error) {
    const { message, data } = /** @type {{ message?: string, data?: any }} */ (error);
    this.#result.hidden = data === undefined || data === null;
    this.#result.textContent = jsonText(data);
    this.#say("ja-bad", message ?? String(error));
  }

  /**
   * @param {string} look
   * @param {string} text
   */
  #say(look, text) {
    this.#status.className = `ja-call-status ${look}`;
    this.#status.textContent = text;
    this.element.scrollIntoView({ block: "nearest" });
  }
}

let forms = 0; // makes ids for labels unique on the page

/**
 * @param {Parameter} parameter
 * @param {Field} field
 * @param {string} id
 */
function labelled(parameter, field, id) {
  const type = h("span", { class: "ja-muted" }, parameter.variadic ? "JSON list" : (parameter.type ?? "any"));
  const doc = parameter.doc ? h("span", { class: "ja-muted" }, ` · ${parameter.doc}`) : null;
  const label = h("label", { for: id }, parameter.name, " ", type, doc);
  const isBox = field.element instanceof HTMLInputElement && field.element.type === "checkbox";
  return h("div", { class: isBox ? "ja-field ja-field-inline" : "ja-field" }, label, field.element);
}

/**
 * Show a form for one callable in `element`.
 * @param {HTMLElement} element
 * @param {CallFormProps} props
 */
export function mountCallForm(element, props) {
  let current = props;
  let form = buildForm(() => current);
  element.replaceChildren(form.element);
  return {
    /** @param {Partial<CallFormProps>} changes */
    update(changes) {
      const before = JSON.stringify(current.callable);
      current = { ...current, ...changes };
      if (JSON.stringify(current.callable) === before) return;
      form.cancel();
      form = buildForm(() => current);
      element.replaceChildren(form.element);
    },
    destroy() {
      form.cancel();
      element.replaceChildren();
    },
  };
}

/** @param {() => CallFormProps} props */
function buildForm(props) {
  const { callable, open } = props();
  const prefix = `ja-call-${++forms}`;
  const method = callable.name === "" ? methodField(`${prefix}-method`) : null;
  const { rows, read } = buildFields(callable, prefix);
  const output = new Output();
  /** @type {AbortController | null} */
  let running = null;
  const cancel = () => running?.abort(new Error("Cancelled"));
  const runButton = h(
    "button",
    { type: "submit", class: "ja-button ja-primary" },
    callable.streaming ? "Stream" : "Call",
  );
  const stopButton = h("button", { type: "button", class: "ja-button", hidden: true, onclick: cancel }, "Cancel");

  /** @param {boolean} isRunning */
  const show = (isRunning) => {
    runButton.disabled = isRunning;
    stopButton.hidden = !isRunning;
  };
  const run = async () => {
    const controller = (running = new AbortController());
    const started = performance.now();
    output.start();
    show(true);
    try {
      const options = { signal: controller.signal, onChunk: (/** @type {any} */ chunk) => output.chunk(chunk) };
      const name = method?.read() ?? callable.name;
      output.done(await props().call(name, read(), options), performance.now() - started);
    } catch (error) {
      output.failed(error);
    } finally {
      running = null;
      show(false);
    }
  };
  const onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!running) void run();
  };
  const bar = h("div", { class: "ja-bar" }, runButton, stopButton);
  const form = h("form", { class: "ja-call-form", onsubmit }, method?.row, ...rows, bar, output.element);
  return { element: wrapped(callable, form, open ?? false), cancel };
}

/**
 * @param {Callable} callable
 * @param {string} prefix
 */
function buildFields(callable, prefix) {
  const { parameters } = callable;
  if (!parameters) {
    const field = listField(`${prefix}-args`);
    const label = { ...ANY, name: "arguments", type: "JSON list" };
    return { rows: [labelled(label, { ...field, isEmpty: () => false }, `${prefix}-args`)], read: field.read };
  }
  const fields = parameters.map((parameter, index) => makeField(parameter, `${prefix}-${index}`));
  const rows = parameters.map((parameter, index) => labelled(parameter, fields[index], `${prefix}-${index}`));
  return { rows, read: () => readArguments(parameters, fields) };
}

/**
 * @param {Callable} callable
 * @param {HTMLElement} form
 * @param {boolean} open
 */
function wrapped(callable, form, open) {
  const names = (callable.parameters ?? [{ name: "…" }]).map(({ name }) => name).join(", ");
  const title = h("code", { class: "ja-signature" }, callable.name, h("span", { class: "ja-muted" }, `(${names})`));
  const signature = callable.name === "" ? h("span", {}, "Call a method") : title;
  const tag = callable.streaming ? h("span", { class: "ja-tag" }, "stream") : null;
  const text = callable.description ? h("p", { class: "ja-description" }, callable.description) : null;
  return h("details", { class: "ja-call", open }, h("summary", {}, signature, tag), text, form);
}

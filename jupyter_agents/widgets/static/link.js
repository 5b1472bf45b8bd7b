/**
 * One view's line to its feed in the kernel, and the few things that go to Jupyter Server instead.
 *
 * A view says hello and gets a snapshot, then batches. It speaks every five seconds, so that the kernel knows that
 * somebody looks; when nothing comes back, the kernel is away.
 * @module link
 */

/**
 * What anywidget gives a view.
 * @typedef {object} Model
 * @property {(name: string) => any} get
 * @property {(name: string, value: any) => void} set
 * @property {(content: any, callbacks?: any, buffers?: ArrayBuffer[]) => void} send
 * @property {(event: string, callback: (...args: any[]) => void) => void} on
 * @property {(event: string, callback: (...args: any[]) => void) => void} off
 */

/**
 * @typedef {object} Listener
 * @property {(facts: any, isWhole: boolean) => void} onFacts
 * @property {(isHere: boolean) => void} onPresence Whether the kernel answers.
 */

/** @typedef {{ signal?: AbortSignal, onChunk?: (chunk: any) => void, buffers?: ArrayBuffer[] }} AskOptions */
/** @typedef {{ resolve: (value: any) => void, reject: (error: Error) => void, onChunk?: (chunk: any) => void }} Pending */

const SPEAK_MS = 5000;
const QUIET_MS = 12_500;

function makeId() {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * A value that came beside the JSON, or in it.
 * @param {{ buffer?: number, json?: any } | undefined} reference
 * @param {DataView[]} buffers
 */
function readValue(reference, buffers) {
  if (reference?.buffer === undefined) return reference?.json;
  return JSON.parse(new TextDecoder().decode(buffers[reference.buffer]));
}

/**
 * Put the values that came beside the JSON where they belong.
 * @param {any} facts
 * @param {DataView[]} buffers
 */
export function unpacked(facts, buffers) {
  const { state } = facts;
  for (const moment of state ? [...(state.past ?? []), state.now] : []) {
    if (moment && "value" in moment) moment.value = readValue(moment.value, buffers);
  }
  return facts;
}

export class Link {
  #view = makeId();
  #model;
  #listener;
  #asks = 0;
  #heardAt = performance.now();
  #isHere = true;
  #hasSnapshot = false;
  /** @type {Map<number, Pending>} */ #pending = new Map();
  #ending = new AbortController();

  /**
   * @param {Model} model
   * @param {Listener} listener
   */
  constructor(model, listener) {
    this.#model = model;
    this.#listener = listener;
    const { signal } = this.#ending;
    this.#on("msg:custom", (content, buffers) => this.#heard(content, buffers ?? []));
    this.#on("comm:close", () => this.#setPresence(false));
    document.addEventListener("visibilitychange", () => this.#speak(), { signal });
    const timer = setInterval(() => this.#speak(), SPEAK_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    this.#send({ do: "hello" });
  }

  /**
   * Have the kernel do something; resolves with its answer, rejects with its refusal.
   * @param {string} what
   * @param {any} [given]
   * @param {AskOptions} [options]
   * @returns {Promise<any>}
   */
  ask(what, given = {}, { signal, onChunk, buffers = [] } = {}) {
    const ask = ++this.#asks;
    return new Promise((resolve, reject) => {
      if (!this.#isHere) return reject(new Error("The kernel does not answer; run the cell again"));
      this.#pending.set(ask, { resolve, reject, onChunk });
      signal?.addEventListener("abort", () => this.#send({ do: "ask", ask: ++this.#asks, what: "cancel", given: { ask } }));
      this.#send({ do: "ask", ask, what, given }, buffers);
      return undefined;
    });
  }

  /** The view is gone. */
  end() {
    this.#send({ do: "bye" });
    this.#ending.abort();
    this.#failAll("The view was closed");
  }

  /**
   * @param {string} event
   * @param {(...args: any[]) => void} callback
   */
  #on(event, callback) {
    this.#model.on(event, callback);
    this.#ending.signal.addEventListener("abort", () => this.#model.off(event, callback));
  }

  /**
   * @param {any} content
   * @param {ArrayBuffer[]} [buffers]
   */
  #send(content, buffers = []) {
    try {
      this.#model.send({ ...content, view: this.#view, hidden: document.hidden }, undefined, buffers);
    } catch {
      this.#setPresence(false); // the comm is closed
    }
  }

  #speak() {
    this.#send({ do: "alive" });
    if (!document.hidden && performance.now() - this.#heardAt > QUIET_MS) this.#setPresence(false);
  }

  /**
   * @param {any} content
   * @param {DataView[]} buffers
   */
  #heard(content, buffers) {
    if (content.kind === "ended") return this.#setPresence(false);
    this.#heardAt = performance.now();
    this.#setPresence(true);
    if (content.to && content.to !== this.#view) return undefined;
    if (content.kind === "answer") return this.#answered(content);
    if (content.kind !== "snapshot" && (content.kind !== "batch" || !this.#hasSnapshot)) return undefined;
    this.#hasSnapshot = true;
    for (const [view, ask, chunks] of content.calls?.chunks ?? []) {
      if (view === this.#view) chunks.forEach((/** @type {any} */ chunk) => this.#pending.get(ask)?.onChunk?.(chunk));
    }
    return this.#listener.onFacts(unpacked(content, buffers), content.kind === "snapshot");
  }

  /** @param {{ ask: number, value?: any, error?: string }} answer */
  #answered({ ask, value, error }) {
    const pending = this.#pending.get(ask);
    this.#pending.delete(ask);
    if (error === undefined) pending?.resolve(value);
    else pending?.reject(new Error(error));
  }

  /** @param {boolean} isHere */
  #setPresence(isHere) {
    if (isHere === this.#isHere) return;
    this.#isHere = isHere;
    if (!isHere) this.#failAll("The kernel went away");
    this.#listener.onPresence(isHere);
  }

  /** @param {string} why */
  #failAll(why) {
    for (const { reject } of this.#pending.values()) reject(new Error(why));
    this.#pending.clear();
  }
}

/**
 * Where the page that shows this view is served, when Jupyter Server serves it; null elsewhere (VS Code, an export).
 * @returns {{ baseUrl: string, token: string } | null}
 */
export function jupyterPage() {
  const config = document.getElementById("jupyter-config-data");
  try {
    const { baseUrl, token } = JSON.parse(config?.textContent ?? "");
    return typeof baseUrl === "string" ? { baseUrl, token: token ?? "" } : null;
  } catch {
    return null;
  }
}

/**
 * Ask Jupyter Server, past the kernel: this works while a cell runs. Null when it cannot be asked, or refuses.
 * @param {string} method
 * @param {string} path Below the base URL.
 * @param {any} [body]
 * @returns {Promise<any>}
 */
export async function askServer(method, path, body) {
  const page = jupyterPage();
  if (!page) return null;
  const xsrf = /(?:^|;\s*)_xsrf=([^;]*)/.exec(document.cookie)?.[1] ?? "";
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json", "X-XSRFToken": decodeURIComponent(xsrf) };
  if (page.token) headers.Authorization = `token ${page.token}`;
  try {
    const response = await fetch(page.baseUrl + path, { method, headers, body: body && JSON.stringify(body) });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

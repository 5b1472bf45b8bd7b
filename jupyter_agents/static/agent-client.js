/**
 * The JavaScript client of jupyter_agents: talk to an agent from a page, a worker or Node.
 *
 * The surface is that of the Cloudflare Agents SDK's `AgentClient` (npm `agents` 0.32.0), so that code moves
 * over unchanged, plus what our servers answer to `_ja=1`: acknowledged writes, patches, cancellation, numbered
 * chunks. One file, no dependencies, no build. The frames are described in docs/wire.md.
 *
 *     import { AgentClient } from "./agent-client.js";
 *     const client = new AgentClient({ agent: "ChatRoom", name: "lobby", host: "localhost:8888" });
 *     await client.ready;
 *     await client.setState({ ...client.state, topic: "tea" });
 *     console.log(await client.stub.shout("hello"));
 *     for await (const chunk of client.stream("count", [3])) console.log(chunk);
 *
 * @module agent-client
 */

// ---------------------------------------------------------------------------------------------- types

/**
 * What a WebSocket carries in one message.
 * @typedef {string | ArrayBuffer | Blob | ArrayBufferView<ArrayBuffer>} Frame
 */

/** @typedef {Record<string, string | null | undefined>} Query */

/** @typedef {string | string[] | null} Protocols */

/**
 * The clock a client lives by; tests give their own.
 * @typedef {object} Timers
 * @property {(task: () => void, milliseconds: number) => any} setTimeout
 * @property {(handle: any) => void} clearTimeout
 * @property {() => number} now Milliseconds, from any origin.
 */

/**
 * Where an agent instance is.
 * @typedef {object} AddressOptions
 * @property {string} agent Class name (`ChatRoom`) or its kebab form (`chat-room`).
 * @property {string} [name] Instance name; `"default"` when left out.
 * @property {string} [host] `host[:port]`, with or without a scheme. Left out in a page: the page's own host.
 * @property {string} [prefix] What comes before the agent in the path; `"agents"` when left out. Under a Jupyter
 *     Server with a `base_url`, for instance `"user/alice/agents"`.
 * @property {string} [basePath] A whole path instead of prefix, agent and name.
 * @property {string} [path] More path after the name; must not start with a slash.
 * @property {Query | (() => Query | Promise<Query>)} [query] Query values; a function is asked at every connect.
 */

/**
 * @template [State=unknown]
 * @typedef {object} ClientOptions
 * @property {"ws" | "wss"} [protocol] Chosen from the host when left out.
 * @property {Protocols | (() => Protocols | Promise<Protocols>)} [protocols] WebSocket subprotocols.
 * @property {string} [id] Connection id, kept over reconnects; a UUID when left out.
 * @property {boolean} [extended] False speaks the SDK's wire only: no acknowledgements, patches or cancels.
 * @property {any} [WebSocket] The class to use where there is no global one (Node before 22).
 * @property {BinaryType} [binaryType] `"blob"` as in the SDK, or `"arraybuffer"`.
 * @property {boolean} [startClosed] Wait for `reconnect()` before connecting.
 * @property {number} [minReconnectionDelay] Milliseconds before the first retry, at most; 3000.
 * @property {number} [maxReconnectionDelay] Milliseconds between retries, at most; 10000.
 * @property {number} [reconnectionDelayGrowFactor] 1.3.
 * @property {boolean} [jitter] True (the default) draws each delay from zero to its bound.
 * @property {number} [minUptime] A connection that lived this many milliseconds resets the back-off; 5000.
 * @property {number} [connectionTimeout] Milliseconds to wait for an open socket; 4000.
 * @property {number} [maxRetries] Unlimited when left out.
 * @property {number} [maxEnqueuedMessages] Frames kept while not connected; 1000. One more is dropped: `send`
 *     returns false and a `dropped` event tells; a call is rejected.
 * @property {(event: SocketCloseEvent) => boolean} [shouldReconnectOnClose] Asked in addition to the final codes.
 * @property {boolean} [disableNameValidation] No warning about a slash in a name.
 * @property {number} [defaultCallTimeout] Milliseconds for calls and for the acknowledgement of writes; 30000.
 *     0 disables. Streams have none.
 * @property {boolean} [debug] Log what the socket does.
 * @property {(...args: any[]) => void} [debugLogger]
 * @property {Timers} [timers] For tests.
 * @property {() => number} [random] For tests: a number from 0 to 1.
 * @property {(state: State, source: "server" | "client") => void} [onStateUpdate]
 * @property {(error: string) => void} [onStateUpdateError]
 * @property {(name: string, agent: string) => void} [onIdentity]
 * @property {(oldName: string, newName: string, oldAgent: string, newAgent: string) => void} [onIdentityChange]
 * @property {(error: AgentConnectionError) => void} [onConnectionError]
 */

/**
 * @template [State=unknown]
 * @typedef {AddressOptions & ClientOptions<State>} AgentClientOptions
 */

/**
 * @typedef {object} StreamOptions
 * @property {(chunk: any) => void} [onChunk]
 * @property {(finalChunk: any) => void} [onDone]
 * @property {(error: string) => void} [onError]
 */

/**
 * @typedef {object} CallOptions
 * @property {number} [timeout] Milliseconds; 0 disables. It is sent along as the call's deadline.
 * @property {StreamOptions} [stream]
 * @property {AbortSignal} [signal] Aborting cancels the call, in the agent, too.
 */

/**
 * @typedef {object} FetchOptions
 * @property {"http" | "https"} [protocol]
 * @property {typeof fetch} [fetch]
 */

/**
 * One operation of RFC 6902.
 * @typedef {object} PatchOperation
 * @property {"add" | "remove" | "replace" | "move" | "copy" | "test"} op
 * @property {string} path
 * @property {string} [from]
 * @property {any} [value]
 */

/**
 * @typedef {object} ClientEvents
 * @property {Event} open
 * @property {MessageEvent} message Every frame, the protocol's own included (as in the SDK).
 * @property {MessageEvent} data The agent's own messages only.
 * @property {SocketCloseEvent} close
 * @property {SocketErrorEvent} error
 * @property {Event} suspended The kernel went away; the connection stays and messages wait.
 * @property {Event} resumed The kernel is back.
 * @property {MessageEvent} dropped A frame did not fit into the queue; `event.data` is that frame.
 */

export const DEFAULT_CALL_TIMEOUT_MS = 30000;

const DEFAULTS = {
  minReconnectionDelay: 3000,
  maxReconnectionDelay: 10000,
  reconnectionDelayGrowFactor: 1.3,
  minUptime: 5000,
  connectionTimeout: 4000,
  maxRetries: Number.POSITIVE_INFINITY,
  maxEnqueuedMessages: 1000,
};

const CLOSED_TEXT = "Connection closed";
const QUEUE_FULL_TEXT = "The queue is full";
const READONLY_TEXT = "Connection is readonly";
const STREAM_BUFFER_LIMIT = 10000; // chunks that nobody has read yet
const CANCELLED_MEMORY = 256; // ids whose late answers are no surprise

const CLOSE_NORMAL = 1000;
const CLOSE_ABNORMAL = 1006;
const CLOSE_POLICY = 1008;
const CLOSE_SERVICE_RESTART = 1012;
const CLOSE_TRY_AGAIN_LATER = 1013;

const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 3;

/** @type {Timers} */
const SYSTEM_TIMERS = {
  setTimeout: (task, milliseconds) => globalThis.setTimeout(task, milliseconds),
  clearTimeout: (handle) => globalThis.clearTimeout(handle),
  now: () => Date.now(),
};

// --------------------------------------------------------------------------------------------- errors

/** The connection ended and does not come back by itself. */
export class AgentConnectionError extends Error {
  /** @param {{ code: number, reason: string, wasClean: boolean }} event */
  constructor(event) {
    super(`Agent connection closed: ${event.reason || `WebSocket closed with code ${event.code}`}`);
    this.name = "AgentConnectionError";
    this.code = event.code;
    this.reason = event.reason;
    this.wasClean = event.wasClean;
  }
}

/** A call did not bring a result. */
export class CallError extends Error {
  /**
   * @param {string} message
   * @param {string} method
   * @param {string} callId
   */
  constructor(message, method, callId) {
    super(message);
    this.name = "CallError";
    this.method = method;
    this.callId = callId;
  }
}

/** The agent answered with an error; `data` is what its author made public besides the text. */
export class CallFailed extends CallError {
  /**
   * @param {string} message
   * @param {string} method
   * @param {string} callId
   * @param {any} [data]
   */
  constructor(message, method, callId, data) {
    super(message, method, callId);
    this.name = "CallFailed";
    this.data = data;
  }
}

/** No answer came within `milliseconds`. */
export class CallTimeout extends CallError {
  /**
   * @param {string} method
   * @param {number} milliseconds
   * @param {string} callId
   */
  constructor(method, milliseconds, callId) {
    super(`RPC call to ${method} timed out after ${milliseconds}ms`, method, callId);
    this.name = "CallTimeout";
    this.milliseconds = milliseconds;
  }
}

/** The connection ended first. `transmitted` false: the call was never sent and is safe to repeat. */
export class CallAborted extends CallError {
  /**
   * @param {string} why
   * @param {string} method
   * @param {string} callId
   * @param {boolean} transmitted
   */
  constructor(why, method, callId, transmitted) {
    super(why, method, callId);
    this.name = "CallAborted";
    this.transmitted = transmitted;
  }
}

/** A write of the state did not happen, or nobody knows whether it did. */
export class StateError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "StateError";
  }
}

/** The agent refused the write; `reason` says why, `state` is what it has instead. */
export class StateRejected extends StateError {
  /**
   * @param {string} reason
   * @param {any} [state]
   */
  constructor(reason, state) {
    super(reason);
    this.name = "StateRejected";
    this.reason = reason;
    this.state = state;
  }
}

/** This connection may read the state but not change it. */
export class ConnectionReadonly extends StateError {
  constructor() {
    super(READONLY_TEXT);
    this.name = "ConnectionReadonly";
  }
}

// --------------------------------------------------------------------------------------------- events

/** `close`, in every runtime (Node 20 and 22 have no CloseEvent). */
export class SocketCloseEvent extends Event {
  /**
   * @param {number} code
   * @param {string} reason
   * @param {boolean} wasClean
   */
  constructor(code, reason, wasClean) {
    super("close");
    this.code = code;
    this.reason = reason;
    this.wasClean = wasClean;
  }
}

/** `error`, in every runtime. */
export class SocketErrorEvent extends Event {
  /** @param {Error} error */
  constructor(error) {
    super("error");
    this.error = error;
    this.message = error.message;
  }
}

/**
 * Tell whether a close stops a client for good: 1008 and 4000–4999.
 * @param {{ code: number }} event
 */
export function isTerminalCloseEvent(event) {
  return event.code === CLOSE_POLICY || (event.code >= 4000 && event.code <= 4999);
}

// ---------------------------------------------------------------------------------------------- names

/**
 * The SDK's spelling of a class name in a URL: `ChatRoom` → `chat-room`, `AIThing` → `a-i-thing`.
 * @param {string} text
 */
export function camelCaseToKebabCase(text) {
  if (text === text.toUpperCase() && text !== text.toLowerCase()) {
    return text.toLowerCase().replaceAll("_", "-");
  }
  return text
    .replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
    .replace(/^-/, "")
    .replaceAll("_", "-")
    .replace(/-$/, "");
}

/** A UUID, also on plain-http pages, where `crypto.randomUUID` is missing. */
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** @param {string} text */
function withoutOuterSlashes(text) {
  return text.replace(/^\/+|\/+$/g, "");
}

/** @param {string} host Host and perhaps port and path, without a scheme. */
function isPrivateHost(host) {
  const name = host.replace(/\/.*$/, "").replace(/:\d+$/, "");
  const second = Number(/^172\.(\d+)\./.exec(name)?.[1]);
  return (
    name === "localhost" ||
    ["[::1]", "[::ffff:7f00:1]", "0.0.0.0"].includes(name) ||
    /^(127|10)\.\d|^192\.168\./.test(name) ||
    (second >= 16 && second <= 31)
  );
}

/**
 * Whether to go over TLS: as the host's scheme says, or as this page came, or (as in the SDK) unless it is local.
 * @param {string} scheme
 * @param {string} host
 */
function isSecure(scheme, host) {
  if (scheme) return scheme === "https" || scheme === "wss";
  const page = globalThis.location;
  if (page?.host === host && page.protocol.startsWith("http")) return page.protocol === "https:";
  return !isPrivateHost(host);
}

/**
 * Where the options point to, without the query.
 * @param {AddressOptions & { protocol?: string }} options
 * @param {"ws" | "http"} family
 */
function resolveAddress(options, family) {
  if (options.path?.startsWith("/")) throw new Error("path must not start with a slash");
  const given = options.host ?? globalThis.location?.host;
  if (!given) throw new Error("host is required outside a page");
  const [, scheme, rest] = /** @type {RegExpExecArray} */ (/^(?:(https?|wss?):\/\/)?(.*)$/.exec(given));
  const host = rest.replace(/\/+$/, "");
  const protocol = options.protocol ?? family + (isSecure(scheme, host) ? "s" : "");
  const route = options.basePath ? withoutOuterSlashes(options.basePath) : standardRoute(options);
  const path = options.path ? `/${options.path}` : "";
  return { host, protocol, path, url: `${protocol}://${host}/${route}${path}` };
}

/** @param {AddressOptions} options */
function standardRoute(options) {
  const prefix = withoutOuterSlashes(options.prefix ?? "agents") || "agents";
  return `${prefix}/${camelCaseToKebabCase(options.agent)}/${encodeURIComponent(options.name || "default")}`;
}

/**
 * @param {string} base
 * @param {Record<string, string>} own
 * @param {Query} query
 */
function withQuery(base, own, query) {
  const values = new URLSearchParams(own);
  for (const [key, value] of Object.entries(query)) {
    if (value !== null && value !== undefined) values.append(key, value);
  }
  const text = values.toString();
  return text ? `${base}?${text}` : base;
}

/** @param {AddressOptions["query"]} query */
async function currentQuery(query) {
  const values = typeof query === "function" ? await query() : query;
  if (values !== undefined && values !== null && typeof values !== "object") {
    throw new TypeError(`query must give an object, not ${typeof values}`);
  }
  return values ?? {};
}

/**
 * Make an HTTP request to an agent instance (its `on_request`).
 * @param {AddressOptions & FetchOptions} options
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 */
export async function agentFetch(options, init) {
  const { url } = resolveAddress(options, "http");
  const send = options.fetch ?? globalThis.fetch;
  return send(withQuery(url, {}, await currentQuery(options.query)), init);
}

// ----------------------------------------------------------------------------------------- JSON values

/**
 * Tell whether two JSON values are equal; the order of keys does not matter.
 * @param {any} a
 * @param {any} b
 * @returns {boolean}
 */
export function jsonEqual(a, b) {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  return (
    keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && jsonEqual(a[key], b[key]))
  );
}

/**
 * The document after the operations of RFC 6902; the one given is left as it was.
 * @param {any} document
 * @param {PatchOperation[]} operations
 * @returns {any}
 * @throws {Error} when an operation does not fit the document; then none of them counts.
 */
export function applyPatch(document, operations) {
  return operations.reduce(applyOperation, document);
}

/**
 * @param {any} document
 * @param {PatchOperation} operation
 */
function applyOperation(document, { op, path, from, value }) {
  const target = pointerKeys(path);
  switch (op) {
    case "add":
      return addAt(document, target, value);
    case "replace":
      return changeAt(document, target, () => value);
    case "remove":
      return removeAt(document, target);
    case "copy":
      return addAt(document, target, valueAt(document, pointerKeys(from)));
    case "move":
      return moveTo(document, pointerKeys(from), target);
    case "test":
      if (jsonEqual(valueAt(document, target), value)) return document;
      throw new Error(`patch: the value at "${path}" is another one`);
    default:
      throw new Error(`patch: unknown operation "${op}"`);
  }
}

/** @param {string | undefined} pointer */
function pointerKeys(pointer) {
  if (pointer === "") return [];
  if (!pointer?.startsWith("/")) throw new Error(`patch: "${pointer}" is not a pointer`);
  return pointer
    .slice(1)
    .split("/")
    .map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/**
 * The key under which `container` holds an existing value.
 * @param {any} container
 * @param {string} key
 */
function existingKey(container, key) {
  const isList = Array.isArray(container);
  const known = isList ? /^(0|[1-9]\d*)$/.test(key) && Number(key) < container.length : isOwnKey(container, key);
  if (!known) throw new Error(`patch: there is no "${key}"`);
  return isList ? Number(key) : key;
}

/**
 * @param {any} container
 * @param {string} key
 */
function isOwnKey(container, key) {
  return typeof container === "object" && container !== null && Object.hasOwn(container, key);
}

/**
 * @param {any} document
 * @param {string[]} keys
 */
function valueAt(document, keys) {
  return keys.reduce((node, key) => node[existingKey(node, key)], document);
}

/**
 * A copy of the document in which the value at `keys` is what `change` makes of it.
 * @param {any} document
 * @param {string[]} keys
 * @param {(value: any) => any} change
 * @returns {any}
 */
function changeAt(document, keys, change) {
  if (keys.length === 0) return change(document);
  const key = existingKey(document, keys[0]);
  const copy = Array.isArray(document) ? [...document] : { ...document };
  return put(copy, key, changeAt(document[key], keys.slice(1), change));
}

/**
 * Set an own property, `__proto__` included, which plain assignment would hand to the prototype.
 * @param {any} container
 * @param {string | number} key
 * @param {any} value
 */
function put(container, key, value) {
  const property = { value, writable: true, enumerable: true, configurable: true };
  return Object.defineProperty(container, key, property);
}

/**
 * @param {any} document
 * @param {string[]} keys
 * @param {any} value
 */
function addAt(document, keys, value) {
  if (keys.length === 0) return value;
  const last = keys[keys.length - 1];
  return changeAt(document, keys.slice(0, -1), (container) => {
    if (Array.isArray(container)) return insertInto(container, last, value);
    if (typeof container !== "object" || container === null) throw new Error(`patch: nothing to hold "${last}"`);
    return put({ ...container }, last, value);
  });
}

/**
 * @param {any[]} list
 * @param {string} key
 * @param {any} value
 */
function insertInto(list, key, value) {
  const index = key === "-" || Number(key) === list.length ? list.length : existingKey(list, key);
  return [...list.slice(0, Number(index)), value, ...list.slice(Number(index))];
}

/**
 * @param {any} document
 * @param {string[]} keys
 */
function removeAt(document, keys) {
  if (keys.length === 0) throw new Error("patch: the whole document cannot be removed");
  return changeAt(document, keys.slice(0, -1), (container) => {
    const key = existingKey(container, keys[keys.length - 1]);
    if (Array.isArray(container)) return container.filter((_, index) => index !== key);
    const { [key]: _removed, ...rest } = container;
    return rest;
  });
}

/**
 * @param {any} document
 * @param {string[]} from
 * @param {string[]} target
 */
function moveTo(document, from, target) {
  if (from.length < target.length && from.every((key, index) => key === target[index])) {
    throw new Error("patch: a value cannot move into itself");
  }
  const value = valueAt(document, from);
  return from.length === 0 ? document : addAt(removeAt(document, from), target, value);
}

// --------------------------------------------------------------------------------------------- socket

/**
 * A frame on its way out. It is rendered when it leaves, because a call's deadline and a write's base depend on it.
 * @typedef {object} Outgoing
 * @property {() => Frame} render
 * @property {number} size
 * @property {() => void} [onSent]
 */

/**
 * @typedef {object} SocketOwner
 * @property {() => Promise<{ url: string, protocols: Protocols }>} destination
 * @property {(event: Event) => void} opened
 * @property {(event: MessageEvent) => void} received
 * @property {(event: SocketCloseEvent, final: boolean) => void} closed
 * @property {(event: SocketErrorEvent) => void} failed
 */

/** @param {Frame} data */
function frameSize(data) {
  if (typeof data === "string") return data.length;
  return data instanceof Blob ? data.size : data.byteLength;
}

/**
 * Milliseconds to wait before retry number `retry`, which counts from 1.
 * @param {ClientOptions<any>} options
 * @param {number} retry
 * @param {number} closeCode What ended the last connection.
 */
function reconnectionDelay(options, retry, closeCode) {
  const { minReconnectionDelay, maxReconnectionDelay, reconnectionDelayGrowFactor } = { ...DEFAULTS, ...options };
  const draw = options.jitter === false ? 1 : (options.random ?? Math.random)();
  if (retry === 0 || (retry === 1 && closeCode === CLOSE_SERVICE_RESTART)) return 0;
  if (closeCode === CLOSE_TRY_AGAIN_LATER) return (maxReconnectionDelay * (1 + draw)) / 2;
  return draw * Math.min(maxReconnectionDelay, minReconnectionDelay * reconnectionDelayGrowFactor ** (retry - 1));
}

/** One WebSocket after the other, with a queue for the time between. It knows nothing of agents. */
class ReconnectingSocket {
  /** @type {any} */ #socket = null;
  /** @type {Outgoing[]} */ #queue = [];
  /** @type {SocketOwner} */ #owner;
  /** @type {ClientOptions<any>} */ #options;
  /** @type {any} */ #retryTimer = null;
  /** @type {any} */ #connectTimer = null;
  /** @type {any} */ #uptimeTimer = null;
  #attempt = 0; // tells the live attempt from overtaken ones
  #retries = -1;
  #lastCode = 0;
  #explicitlyClosed = false;
  #warnedAboutSend = false;
  #onOnline = () => this.#retryNow();
  shouldReconnect;

  /**
   * @param {SocketOwner} owner
   * @param {ClientOptions<any>} options
   */
  constructor(owner, options) {
    this.#owner = owner;
    this.#options = options;
    this.shouldReconnect = !options.startClosed;
  }

  /** @param {ClientOptions<any>} options */
  configure(options) {
    this.#options = options;
  }

  get socket() {
    return this.#socket;
  }

  get retryCount() {
    return Math.max(this.#retries, 0);
  }

  get isExplicitlyClosed() {
    return this.#explicitlyClosed;
  }

  get readyState() {
    if (this.#explicitlyClosed) return CLOSED;
    if (this.#socket) return this.#socket.readyState;
    return this.shouldReconnect ? CONNECTING : CLOSED;
  }

  get bufferedAmount() {
    const waiting = this.#queue.reduce((sum, outgoing) => sum + outgoing.size, 0);
    return waiting + (this.#socket?.bufferedAmount ?? 0);
  }

  get #timers() {
    return this.#options.timers ?? SYSTEM_TIMERS;
  }

  start() {
    if (!this.shouldReconnect) return;
    globalThis.addEventListener?.("online", this.#onOnline);
    this.#schedule();
  }

  /**
   * Send now, or keep for the next connection.
   * @param {Outgoing} outgoing
   * @returns {"sent" | "queued" | "dropped"}
   */
  post(outgoing) {
    if (this.readyState === OPEN) {
      this.#transmit(outgoing);
      return "sent";
    }
    this.#warnAfterClose();
    if (this.#queue.length >= (this.#options.maxEnqueuedMessages ?? DEFAULTS.maxEnqueuedMessages)) return "dropped";
    this.#queue.push(outgoing);
    return "queued";
  }

  /** @param {Outgoing} outgoing Send again now, or before all that waits, beyond the limit of the queue. */
  requeue(outgoing) {
    if (this.readyState === OPEN) this.#transmit(outgoing);
    else this.#queue.unshift(outgoing);
  }

  /** @param {Outgoing} outgoing */
  withdraw(outgoing) {
    this.#queue = this.#queue.filter((other) => other !== outgoing);
  }

  drain() {
    return this.#queue.splice(0);
  }

  /**
   * @param {number} [code]
   * @param {string} [reason]
   */
  close(code = CLOSE_NORMAL, reason = "") {
    checkClose(code, reason);
    this.#explicitlyClosed = true;
    this.shouldReconnect = false;
    this.#stopTimers();
    this.#attempt += 1;
    globalThis.removeEventListener?.("online", this.#onOnline);
    this.#discard(code, reason);
  }

  /**
   * @param {number} [code]
   * @param {string} [reason]
   */
  reconnect(code = CLOSE_NORMAL, reason = "") {
    checkClose(code, reason);
    this.shouldReconnect = true;
    this.#explicitlyClosed = false;
    this.#warnedAboutSend = false;
    this.#retries = -1;
    this.#stopTimers();
    this.#discard(code, reason);
    this.#socket = null;
    this.start();
  }

  /**
   * Leave the present socket, if it is alive, and tell so at once.
   * @param {number} code
   * @param {string} reason
   */
  #discard(code, reason) {
    const socket = this.#socket;
    if (!socket || socket.readyState > OPEN) return;
    this.#abandon(socket, code, reason);
    this.#owner.closed(new SocketCloseEvent(code, reason, true), !this.shouldReconnect);
  }

  /**
   * @param {any} socket
   * @param {number} [code]
   * @param {string} [reason]
   */
  #abandon(socket, code, reason) {
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.onerror = () => {}; // the `ws` package throws errors that nobody listens to
    this.#socket = null;
    socket.close(code, reason);
  }

  #schedule() {
    const attempt = ++this.#attempt;
    this.#retries += 1;
    const delay = reconnectionDelay(this.#options, this.#retries, this.#lastCode);
    this.#debug("connect", this.#retries, "in", delay);
    this.#retryTimer = this.#timers.setTimeout(() => this.#connect(attempt), delay);
  }

  #retryNow() {
    if (this.#retryTimer === null || this.#retries === 0) return;
    this.#timers.clearTimeout(this.#retryTimer);
    this.#connect(this.#attempt);
  }

  /** @param {number} attempt */
  async #connect(attempt) {
    this.#retryTimer = null;
    try {
      const { url, protocols } = await this.#owner.destination();
      if (attempt === this.#attempt) this.#openSocket(url, protocols);
    } catch (error) {
      if (attempt === this.#attempt) this.#failWithoutSocket(error);
    }
  }

  /**
   * @param {string} url
   * @param {Protocols} protocols
   */
  #openSocket(url, protocols) {
    const Class = this.#options.WebSocket ?? globalThis.WebSocket;
    if (!Class) throw new Error("No WebSocket here: give one as options.WebSocket (Node before 22)");
    const socket = protocols ? new Class(url, protocols) : new Class(url);
    this.#socket = socket;
    socket.binaryType = this.#options.binaryType ?? "blob";
    socket.onopen = (/** @type {Event} */ event) => this.#opened(event);
    socket.onmessage = (/** @type {MessageEvent} */ event) => this.#owner.received(event);
    socket.onerror = (/** @type {any} */ event) =>
      this.#reportError(event.error ?? new Error(event.message || "WebSocket error"));
    socket.onclose = (/** @type {CloseEvent} */ event) =>
      this.#ended(new SocketCloseEvent(event.code, event.reason, event.wasClean));
    const limit = this.#options.connectionTimeout ?? DEFAULTS.connectionTimeout;
    this.#connectTimer = this.#timers.setTimeout(() => this.#connectTimedOut(socket), limit);
  }

  /** @param {Event} event */
  #opened(event) {
    this.#timers.clearTimeout(this.#connectTimer);
    const minUptime = this.#options.minUptime ?? DEFAULTS.minUptime;
    this.#uptimeTimer = this.#timers.setTimeout(() => (this.#retries = 0), minUptime);
    for (const outgoing of this.drain()) this.#transmit(outgoing);
    this.#owner.opened(event);
  }

  /** @param {Outgoing} outgoing */
  #transmit(outgoing) {
    const frame = outgoing.render();
    this.#debug("send", frame);
    this.#socket.send(frame);
    outgoing.onSent?.();
  }

  /** @param {any} socket */
  #connectTimedOut(socket) {
    this.#abandon(socket);
    this.#reportError(new Error("TIMEOUT"));
    this.#ended(new SocketCloseEvent(CLOSE_ABNORMAL, "timeout", false));
  }

  /** @param {unknown} error */
  #failWithoutSocket(error) {
    this.#socket = null;
    this.#reportError(error instanceof Error ? error : new Error(String(error)));
    const event = new SocketCloseEvent(CLOSE_ABNORMAL, "could not connect", false);
    if (this.shouldReconnect && this.#mayRetry(event)) this.#schedule();
    else if (!this.#explicitlyClosed) this.#giveUp(event);
  }

  /** @param {SocketCloseEvent} event */
  #ended(event) {
    this.#stopTimers();
    this.#lastCode = event.code;
    this.#debug("closed", event.code, event.reason);
    if (!this.#mayRetry(event)) return this.#giveUp(event);
    this.#schedule();
    return this.#owner.closed(event, false);
  }

  /** @param {SocketCloseEvent} event */
  #giveUp(event) {
    this.shouldReconnect = false;
    globalThis.removeEventListener?.("online", this.#onOnline);
    this.#owner.closed(event, true);
  }

  /** @param {SocketCloseEvent} event */
  #mayRetry(event) {
    const wanted = safely(this.#options.shouldReconnectOnClose, event) ?? true;
    const left = this.#retries < (this.#options.maxRetries ?? DEFAULTS.maxRetries);
    return wanted && left && !isTerminalCloseEvent(event);
  }

  /** @param {Error} error */
  #reportError(error) {
    this.#debug("error", error.message);
    this.#owner.failed(new SocketErrorEvent(error));
  }

  #stopTimers() {
    for (const timer of [this.#retryTimer, this.#connectTimer, this.#uptimeTimer]) {
      this.#timers.clearTimeout(timer);
    }
    this.#retryTimer = null;
  }

  #warnAfterClose() {
    if (!this.#explicitlyClosed || this.#warnedAboutSend) return;
    this.#warnedAboutSend = true;
    console.warn(
      "AgentClient: send() was called after close(). The message waits, but it leaves only if reconnect() is " +
        "called on this client; if the client has been discarded, the message is lost.",
    );
  }

  /** @param {any[]} args */
  #debug(...args) {
    if (this.#options.debug) (this.#options.debugLogger ?? console.log)("AgentClient>", ...args);
  }
}

/**
 * Refuse what `WebSocket.close` would refuse, before anything has changed.
 * @param {number} code
 * @param {string} reason
 */
function checkClose(code, reason) {
  if (code !== CLOSE_NORMAL && !(code >= 3000 && code <= 4999)) {
    throw new RangeError(`A client may close with 1000 or 3000-4999, not ${code}`);
  }
  if (new TextEncoder().encode(reason).length > 123) {
    throw new RangeError("A close reason is at most 123 bytes long");
  }
}

// ---------------------------------------------------------------------------------------------- state

/**
 * A write that the agent has not answered yet.
 * @typedef {object} Write
 * @property {string} id
 * @property {string} text The state as JSON.
 * @property {any} state
 * @property {number | null} base The version it was made upon; only for writes that were made offline.
 * @property {Array<{ resolve: () => void, reject: (error: Error) => void }>} waiters
 * @property {any} timer Null until it was sent.
 * @property {Outgoing} outgoing
 */

/**
 * The client's copy of the state: what the agent confirmed, and the writes on their way to it. Shown is the last
 * write, else the confirmed value; so a rejected write rolls back by itself, and every copy ends as the agent's.
 */
class StateReplica {
  /** @type {any} */ confirmed = undefined;
  /** @type {number | null} */ version = null;
  /** @type {Write[]} */ pending = [];

  get shown() {
    const last = this.pending[this.pending.length - 1];
    return last ? last.state : this.confirmed;
  }

  reset() {
    this.confirmed = undefined;
    this.version = null;
  }

  /**
   * Take over a value from the agent. Frames come in its order, so a whole state is always the newest.
   * @param {any} state
   * @param {number | undefined} version
   */
  receive(state, version) {
    this.confirmed = state;
    this.version = version ?? null;
  }

  /**
   * Take over a write of our own, unless a newer state overtook its acknowledgement.
   * @param {any} state
   * @param {number | undefined} version
   */
  acknowledge(state, version) {
    const isOvertaken = version !== undefined && this.version !== null && version < this.version;
    if (!isOvertaken) this.receive(state, version);
  }

  /**
   * @param {PatchOperation[]} operations
   * @param {number} base
   * @param {number} version
   * @returns {boolean} False when the whole state is needed.
   */
  patch(operations, base, version) {
    if (base !== this.version) return false;
    try {
      this.receive(applyPatch(this.confirmed, operations), version);
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Take a write out, because it was answered.
   * @param {string} id
   * @returns {Write | undefined}
   */
  take(id) {
    const write = this.pending.find((other) => other.id === id);
    this.pending = this.pending.filter((other) => other !== write);
    return write;
  }
}

// ---------------------------------------------------------------------------------------------- calls

/**
 * @typedef {object} PendingCall
 * @property {string} id
 * @property {string} method
 * @property {(value: any) => void} resolve
 * @property {(error: unknown) => void} reject
 * @property {StreamOptions | undefined} stream
 * @property {number | undefined} timeout
 * @property {number} startedAt
 * @property {number} lastSeq Number of the last chunk; they count from 0.
 * @property {boolean} transmitted
 * @property {Outgoing} outgoing
 * @property {any} timer
 * @property {() => void} release Stops listening to the caller's signal.
 */

/**
 * Normalise the options of `call()`: the older shape is the stream callbacks themselves.
 * @param {CallOptions | StreamOptions | undefined} options
 * @returns {CallOptions}
 */
export function splitCallOptions(options) {
  if (options && ("onChunk" in options || "onDone" in options || "onError" in options)) {
    return { stream: options };
  }
  return /** @type {CallOptions} */ (options ?? {});
}

// What runtimes and test tools ask of any object; answering with a method would send a call.
const NOT_METHODS = new Set(
  "toJSON then catch finally valueOf toString constructor prototype $$typeof @@toStringTag asymmetricMatch nodeType".split(
    " ",
  ),
);

/**
 * An object whose every method is a call.
 * @template [T=Record<string, (...args: any[]) => Promise<any>>]
 * @param {(method: string, args: any[]) => unknown} call
 * @returns {T}
 */
export function createStubProxy(call) {
  return /** @type {T} */ (
    new Proxy(
      {},
      {
        get(_target, method) {
          if (typeof method === "symbol" || NOT_METHODS.has(method)) return undefined;
          return (/** @type {any[]} */ ...args) => call(method, args);
        },
      },
    )
  );
}

/**
 * The chunks of one streaming call, for `for await`. Leaving the loop early cancels the call in the agent.
 * @template [T=any]
 * @implements {AsyncIterableIterator<T>}
 */
export class AgentStream {
  /** @type {any[]} */ #chunks = [];
  /** @type {Array<{ resolve: (item: IteratorResult<T>) => void, reject: (error: unknown) => void }>} */ #readers = [];
  #controller = new AbortController();
  #isDone = false;
  /** @type {unknown} */ #error = undefined;

  /** @param {(options: CallOptions) => Promise<any>} start */
  constructor(start) {
    const stream = { onChunk: (/** @type {any} */ chunk) => this.#push(chunk) };
    /** The call's final value; rejects when the stream fails. */
    this.result = start({ stream, signal: this.#controller.signal });
    this.result.then(
      () => this.#finish(undefined),
      (error) => this.#finish(error),
    );
  }

  /** @param {any} [reason] */
  cancel(reason) {
    this.#controller.abort(reason);
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {Promise<IteratorResult<T>>} */
  next() {
    if (this.#chunks.length > 0) return Promise.resolve({ value: this.#chunks.shift(), done: false });
    if (this.#isDone) return this.#ending();
    return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
  }

  /** @returns {Promise<IteratorResult<T>>} */
  return() {
    const isRunning = !this.#isDone;
    this.#chunks = [];
    this.#finish(undefined);
    if (isRunning) this.cancel();
    return Promise.resolve({ value: undefined, done: true });
  }

  /** @param {any} chunk */
  #push(chunk) {
    const reader = this.#readers.shift();
    if (reader) reader.resolve({ value: chunk, done: false });
    else if (this.#chunks.length < STREAM_BUFFER_LIMIT) this.#chunks.push(chunk);
    else this.cancel(new Error(`Stream cancelled: ${STREAM_BUFFER_LIMIT} chunks wait to be read`));
  }

  /** @param {unknown} error */
  #finish(error) {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#error = error;
    for (const reader of this.#readers.splice(0)) this.#ending().then(reader.resolve, reader.reject);
  }

  /** @returns {Promise<IteratorResult<T>>} */
  #ending() {
    const error = this.#error;
    this.#error = undefined; // an iterator fails once, then it is exhausted
    return error === undefined ? Promise.resolve({ value: undefined, done: true }) : Promise.reject(error);
  }
}

/** The calls that wait for an answer. */
class CallTable {
  /** @type {Map<string, PendingCall>} */ #calls = new Map();
  /** @type {Set<string>} */ #cancelled = new Set();

  /** @param {PendingCall} call */
  add(call) {
    this.#calls.set(call.id, call);
  }

  /**
   * Handle an `rpc` frame.
   * @param {any} reply
   */
  receive(reply) {
    const call = this.#calls.get(reply.id);
    if (!call) return this.#warnUnknown(reply.id);
    if (!reply.success) return this.fail(call, new CallFailed(reply.error, call.method, call.id, reply.data));
    if (reply.done === false) return this.#chunk(call, reply);
    this.#remove(call);
    call.resolve(reply.result);
    return safely(call.stream?.onDone, reply.result);
  }

  /**
   * @param {PendingCall} call
   * @param {any} reply
   */
  #chunk(call, { result, seq }) {
    if (typeof seq === "number") {
      if (seq <= call.lastSeq) return;
      if (seq > call.lastSeq + 1) {
        return this.fail(call, new CallFailed(`Chunk ${call.lastSeq + 1} is missing`, call.method, call.id));
      }
      call.lastSeq = seq;
    }
    safely(call.stream?.onChunk, result);
  }

  /**
   * @param {PendingCall} call
   * @param {Error} error
   */
  fail(call, error) {
    if (!this.#remove(call)) return;
    call.reject(error);
    safely(call.stream?.onError, error.message);
  }

  /**
   * @param {string} why
   * @param {(call: PendingCall) => boolean} which
   */
  abort(why, which = () => true) {
    for (const call of [...this.#calls.values()].filter(which)) {
      this.fail(call, new CallAborted(why, call.method, call.id, call.transmitted));
    }
  }

  /**
   * Fail a call whose caller lost interest; its late answer is no surprise.
   * @param {PendingCall} call
   * @param {unknown} reason
   */
  cancel(call, reason) {
    this.#cancelled.add(call.id);
    if (this.#cancelled.size > CANCELLED_MEMORY) this.#cancelled.delete([...this.#cancelled][0]);
    if (!this.#remove(call)) return;
    call.reject(reason);
    safely(call.stream?.onError, reason instanceof Error ? reason.message : String(reason));
  }

  /** @param {PendingCall} call */
  #remove(call) {
    call.release();
    return this.#calls.delete(call.id);
  }

  /** @param {string} id */
  #warnUnknown(id) {
    if (this.#cancelled.has(id)) return;
    console.warn(
      `[AgentClient] Discarded an RPC response with no matching pending call (id "${id}"). The call likely timed ` +
        "out or was rejected when its connection closed before the response arrived.",
    );
  }
}

// --------------------------------------------------------------------------------------------- client

/**
 * @typedef {object} ClientEventTarget
 * @property {<K extends keyof ClientEvents>(type: K, listener: ((event: ClientEvents[K]) => void) | null, options?: boolean | AddEventListenerOptions) => void} addEventListener
 * @property {<K extends keyof ClientEvents>(type: K, listener: ((event: ClientEvents[K]) => void) | null, options?: boolean | EventListenerOptions) => void} removeEventListener
 * @property {(event: Event) => boolean} dispatchEvent
 */

const TypedEventTarget = /** @type {new () => ClientEventTarget} */ (/** @type {unknown} */ (EventTarget));

/** @returns {{ promise: Promise<void>, resolve: () => void, reject: (error: Error) => void, isSettled: boolean }} */
function deferred() {
  /** @type {any} */
  const made = { isSettled: false };
  made.promise = new Promise((resolve, reject) => {
    made.resolve = () => ((made.isSettled = true), resolve(undefined));
    made.reject = (/** @type {Error} */ error) => ((made.isSettled = true), reject(error));
  });
  made.promise.catch(() => {}); // who does not wait is not bothered
  return made;
}

/**
 * A connection to one agent instance that heals itself.
 *
 * Where it goes beyond the SDK: `setState` returns a promise that resolves when the agent has taken the value and
 * rejects with the reason when not (the shown state rolls back); `call` takes an `AbortSignal`; `stream` iterates;
 * `ready` rejects when the connection is refused for good; a restart of the server (1012) is followed at once.
 * @template [State=any]
 */
export class AgentClient extends TypedEventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSING = 2;
  static CLOSED = 3;
  CONNECTING = 0;
  OPEN = 1;
  CLOSING = 2;
  CLOSED = 3;

  /** Kebab-case class name; from the identity frame once it came. @type {string} */ agent;
  /** Instance name; from the identity frame once it came. @type {string} */ name;
  /** Whether the agent has told who it is, on the present connection. */ identified = false;
  /** Whether the agent's kernel is away; messages wait for it. */ suspended = false;
  /** Why the connection ended for good. @type {AgentConnectionError | null} */ connectionError = null;
  /** Methods as functions: `client.stub.add(1, 2)`. @type {Record<string, (...args: any[]) => Promise<any>>} */ stub;
  /** @type {((event: Event) => void) | null} */ onopen = null;
  /** @type {((event: MessageEvent) => void) | null} */ onmessage = null;
  /** @type {((event: SocketCloseEvent) => void) | null} */ onclose = null;
  /** @type {((event: SocketErrorEvent) => void) | null} */ onerror = null;

  /** @type {AgentClientOptions<State>} */ #options;
  /** @type {ReconnectingSocket} */ #socket;
  #id;
  #address;
  #calls = new CallTable();
  #replica = new StateReplica();
  #ready = deferred();
  #isPlain; // the other side does not answer writes
  #hasMoved = false;
  #awaitsState = false;
  #stateSeen = false;
  /** @type {{ name: string, agent: string } | null} */ #heldIdentity = null;
  /** @type {{ name: string, agent: string } | null} */ #lastIdentity = null;

  /** @param {AgentClientOptions<State>} options */
  constructor(options) {
    super();
    this.#options = { ...options };
    this.#id = options.id || randomId();
    this.#address = resolveAddress(options, "ws");
    this.#isPlain = options.extended === false;
    this.agent = camelCaseToKebabCase(options.agent);
    this.name = options.name || "default";
    this.#warnAboutSlashes();
    this.call = this.call.bind(this);
    this.stub = createStubProxy((method, args) => this.call(method, args));
    this.#socket = new ReconnectingSocket(this.#ownSocket(), this.#options);
    this.#socket.start();
  }

  /** @returns {SocketOwner} */
  #ownSocket() {
    return {
      destination: () => this.#destination(),
      opened: (event) => this.#opened(event),
      received: (event) => this.#received(event),
      closed: (event, final) => this.#closed(event, final),
      failed: (event) => this.#emit(event, this.onerror),
    };
  }

  // ..................................................................................... where it is

  get id() {
    return this.#id;
  }

  get host() {
    return this.#address.host;
  }

  get path() {
    return this.#address.path;
  }

  get basePath() {
    return this.#options.basePath;
  }

  get room() {
    return this.name;
  }

  /** The address without its query. */
  get roomUrl() {
    return this.#address.url;
  }

  /** The address of the present connection, query and all. @returns {string} */
  get url() {
    return this.#socket.socket?.url ?? "";
  }

  /** @returns {number} */
  get readyState() {
    return this.#socket.readyState;
  }

  get retryCount() {
    return this.#socket.retryCount;
  }

  get shouldReconnect() {
    return this.#socket.shouldReconnect;
  }

  /** Bytes that `send` took and the network did not get yet. @returns {number} */
  get bufferedAmount() {
    return this.#socket.bufferedAmount;
  }

  /** @returns {string} */
  get extensions() {
    return this.#socket.socket?.extensions ?? "";
  }

  /** @returns {string} */
  get protocol() {
    return this.#socket.socket?.protocol ?? "";
  }

  /** @returns {BinaryType} */
  get binaryType() {
    return this.#options.binaryType ?? "blob";
  }

  set binaryType(value) {
    this.#options.binaryType = value;
    if (this.#socket.socket) this.#socket.socket.binaryType = value;
  }

  /**
   * Resolves when the agent has told who it is and, if it has a state, that state is here. A new promise after
   * each close. Rejects when the connection ended for good before that.
   * @returns {Promise<void>}
   */
  get ready() {
    return this.#ready.promise;
  }

  /**
   * Change options. Another address takes effect at the next `reconnect()`: what waited for the old one is rejected.
   * @param {Partial<AgentClientOptions<State>>} changes
   */
  updateProperties(changes) {
    const options = { ...this.#options, ...changes };
    const address = resolveAddress(options, "ws");
    const moved = address.url !== this.#address.url;
    this.#options = options;
    this.#address = address;
    this.#socket.configure(options);
    if (moved) this.#forgetOldPlace();
  }

  #forgetOldPlace() {
    this.#hasMoved = true;
    this.connectionError = null;
    this.#socket.drain();
    this.#calls.abort("The address has changed", (call) => !call.transmitted);
    this.#abandonWrites("The address has changed");
  }

  async #destination() {
    const { query, protocols } = this.#options;
    /** @type {Record<string, string>} */
    const own = { _pk: this.#id };
    if (this.#options.extended !== false) own._ja = "1";
    const values = await currentQuery(query);
    const chosen = typeof protocols === "function" ? await protocols() : (protocols ?? null);
    return { url: withQuery(this.#address.url, own, values), protocols: chosen };
  }

  #warnAboutSlashes() {
    if (this.#options.disableNameValidation || this.#options.basePath || !this.name.includes("/")) return;
    console.warn(
      `AgentClient: the instance name "${this.name}" contains a slash, which some proxies route elsewhere. Choose ` +
        "a name without, or set disableNameValidation: true.",
    );
  }

  // ........................................................................................ messages

  /**
   * Send a message to the agent.
   * @param {Frame} data
   * @returns {boolean} True when it left at once; false when it waits for a connection, or was dropped because the
   *     queue is full (a `dropped` event tells).
   */
  send(data) {
    const fate = this.#socket.post({ render: () => data, size: frameSize(data) });
    if (fate === "dropped") this.dispatchEvent(new MessageEvent("dropped", { data }));
    return fate === "sent";
  }

  /** Take out what waits to be sent. @returns {Frame[]} */
  drainQueuedMessages() {
    return this.#socket.drain().map((outgoing) => outgoing.render());
  }

  /**
   * Close for good; pending calls and writes are rejected at once.
   * @param {number} [code] 1000 or 3000–4999.
   * @param {string} [reason] At most 123 bytes.
   */
  close(code, reason) {
    checkClose(code ?? CLOSE_NORMAL, reason ?? "");
    this.#calls.abort(CLOSED_TEXT);
    this.#socket.close(code, reason);
    this.#abandonWrites(CLOSED_TEXT);
    this.#ready.reject(new Error(CLOSED_TEXT));
  }

  /**
   * Connect anew, at once, with a fresh back-off.
   * @param {number} [code]
   * @param {string} [reason]
   */
  reconnect(code, reason) {
    this.connectionError = null;
    if (this.#ready.isSettled && !this.identified) this.#ready = deferred();
    this.#socket.reconnect(code, reason);
  }

  /** @param {Event} event */
  #opened(event) {
    this.connectionError = null;
    this.suspended = false;
    if (this.#hasMoved) this.#replica.reset();
    this.#hasMoved = false;
    this.#emit(new Event(event.type), this.onopen);
  }

  /**
   * @param {SocketCloseEvent} event
   * @param {boolean} final
   */
  #closed(event, final) {
    this.identified = false;
    this.#heldIdentity = null;
    this.#stateSeen = this.#awaitsState = false;
    if (this.#ready.isSettled) this.#ready = deferred();
    if (final) this.#endForGood(event);
    else this.#carryOver();
    this.#emit(event, this.onclose);
  }

  #carryOver() {
    this.#calls.abort(CLOSED_TEXT, (call) => call.transmitted);
    this.#requeueWrites();
  }

  /** @param {SocketCloseEvent} event */
  #endForGood(event) {
    const error = this.#socket.isExplicitlyClosed ? null : new AgentConnectionError(event);
    this.connectionError = error;
    this.#calls.abort(CLOSED_TEXT);
    this.#abandonWrites(CLOSED_TEXT);
    this.#ready.reject(error ?? new Error(CLOSED_TEXT));
    if (error) safely(this.#options.onConnectionError, error);
  }

  /** @param {MessageEvent} event */
  #received(event) {
    const isOurs = typeof event.data === "string" && this.#readFrame(event.data);
    if (!isOurs) this.dispatchEvent(new MessageEvent("data", { data: event.data }));
    this.#emit(new MessageEvent("message", { data: event.data }), this.onmessage);
  }

  /**
   * @param {any} event
   * @param {((event: any) => void) | null} handler
   */
  #emit(event, handler) {
    safely(handler?.bind(this), event);
    this.dispatchEvent(event);
  }

  /**
   * @param {string} text
   * @returns {boolean} Whether it was a frame of the protocol.
   */
  #readFrame(text) {
    /** @type {any} */
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return false;
    }
    return this.#handleFrame(frame);
  }

  /** @param {any} frame */
  #handleFrame(frame) {
    switch (frame?.type) {
      case "cf_agent_identity":
        this.#identityReceived(frame);
        return true;
      case "cf_agent_state":
        this.#stateReceived(frame);
        return true;
      case "cf_agent_state_patch":
        this.#patchReceived(frame);
        return true;
      case "cf_agent_state_ack":
        this.#writeConfirmed(frame);
        return true;
      case "cf_agent_state_error":
        this.#writeRejected(frame);
        return true;
      case "rpc":
        this.#calls.receive(frame);
        return true;
      case "cf_agent_suspended":
        this.#suspend(true);
        return true;
      case "cf_agent_resumed":
        this.#suspend(false);
        return true;
      case "cf_agent_mcp_servers":
        this.#speakPlain(); // only the SDK's own servers send this
        return true;
      default:
        return false;
    }
  }

  /** @param {boolean} suspended */
  #suspend(suspended) {
    this.suspended = suspended;
    if (!suspended) this.#requeueWrites(); // perhaps they, or their answers, were lost with the kernel
    this.dispatchEvent(new Event(suspended ? "suspended" : "resumed"));
  }

  // ........................................................................................ identity

  /** @param {{ name: string, agent: string, stateFollows?: boolean }} frame */
  #identityReceived({ name, agent, stateFollows }) {
    if (stateFollows === true && !this.#stateSeen) {
      this.#heldIdentity = { name, agent };
      return;
    }
    if (!this.#stateSeen) this.#forgetState();
    this.#identify({ name, agent });
  }

  /** The agent has no state (any more); only a server that numbers its states can be believed there. */
  #forgetState() {
    if (this.#replica.version === null) return;
    const before = this.#replica.shown;
    this.#replica.reset();
    this.#tellIfChanged(before);
  }

  /** @param {{ name: string, agent: string }} identity */
  #identify(identity) {
    const previous = this.#lastIdentity;
    this.#lastIdentity = identity;
    this.#heldIdentity = null;
    this.identified = true;
    this.name = identity.name;
    this.agent = identity.agent;
    this.#ready.resolve();
    if (previous && (previous.name !== identity.name || previous.agent !== identity.agent)) {
      this.#identityChanged(previous, identity);
    }
    safely(this.#options.onIdentity, identity.name, identity.agent);
  }

  /**
   * @param {{ name: string, agent: string }} before
   * @param {{ name: string, agent: string }} now
   */
  #identityChanged(before, now) {
    const tell = this.#options.onIdentityChange;
    if (tell) return safely(tell, before.name, now.name, before.agent, now.agent);
    return console.warn(
      `[AgentClient] Identity changed on reconnect: ${before.agent}/${before.name} → ${now.agent}/${now.name}. ` +
        "Provide onIdentityChange if the server chooses the instance.",
    );
  }

  // ........................................................................................... state

  /** The last write, else the value the agent confirmed; undefined before the first. @returns {State | undefined} */
  get state() {
    return this.#replica.shown;
  }

  /** The version of the confirmed state; null when the agent sends none. */
  get stateVersion() {
    return this.#replica.version;
  }

  /**
   * Replace the state, here at once and in the agent as soon as it can be told.
   *
   * While connected the last writer wins. A write made offline (only the last of several is kept) goes out with
   * the version it was made upon, and the agent refuses it if the state has changed since.
   * @param {State} state
   * @returns {Promise<void>} Resolves when the agent has taken the value (an SDK server: when it was sent).
   *     Rejects with StateRejected, ConnectionReadonly or StateError; then the shown state has rolled back.
   */
  setState(state) {
    if (this.connectionError || this.#socket.isExplicitlyClosed) return refused(new StateError(CLOSED_TEXT));
    const text = JSON.stringify(state);
    if (text === undefined) return refused(new TypeError(`JSON cannot carry ${typeof state} as the state`));
    const outcome = deferred();
    if (this.#write(text, outcome)) safely(this.#options.onStateUpdate, JSON.parse(text), "client");
    return outcome.promise;
  }

  /**
   * @param {string} text The state as JSON: what the agent will have, not what the caller may still change.
   * @param {ReturnType<typeof deferred>} outcome
   * @returns {boolean} False when the queue is full.
   */
  #write(text, outcome) {
    const isOnline = this.readyState === OPEN;
    const write = this.#newWrite(text, isOnline ? null : this.#replica.version, [outcome]);
    if (!isOnline) this.#supersedeWaiting(write);
    this.#replica.pending.push(write);
    if (this.#socket.post(write.outgoing) !== "dropped") return true;
    const before = this.#replica.shown;
    this.#replica.take(write.id);
    this.#refuse(write, new StateError(QUEUE_FULL_TEXT), before);
    return false;
  }

  /**
   * @param {string} text
   * @param {number | null} base
   * @param {Write["waiters"]} waiters
   * @returns {Write}
   */
  #newWrite(text, base, waiters) {
    const id = randomId();
    const extras = (this.#isPlain ? "" : `,"write":"${id}"`) + (base === null ? "" : `,"base":${base}`);
    const frame = `{"type":"cf_agent_state","state":${text}${extras}}`;
    /** @type {Write} */
    const write = {
      ...{ id, text, state: JSON.parse(text), base, waiters, timer: null },
      outgoing: { render: () => frame, size: frame.length, onSent: () => this.#writeSent(write) },
    };
    return write;
  }

  /** @param {Write} write A newer write made offline answers for the older ones. */
  #supersedeWaiting(write) {
    const older = this.#replica.pending.splice(0);
    for (const { outgoing } of older) this.#socket.withdraw(outgoing);
    write.waiters.unshift(...older.flatMap(({ waiters }) => waiters));
  }

  /** After a drop, or when the kernel was away, nobody knows what became of the writes on the way: the last goes
   * out again, with its base. */
  #requeueWrites() {
    const sent = this.#replica.pending.filter(({ timer }) => timer !== null);
    const last = sent[sent.length - 1];
    if (!last) return;
    for (const { timer } of sent) this.#timers.clearTimeout(timer);
    const again = this.#newWrite(
      last.text,
      this.#replica.version,
      sent.flatMap(({ waiters }) => waiters),
    );
    this.#replica.pending = [again];
    this.#socket.requeue(again.outgoing);
  }

  /** @param {Write} write */
  #writeSent(write) {
    if (this.#isPlain) return this.#confirm(write, write.state, undefined);
    const limit = this.#options.defaultCallTimeout ?? DEFAULT_CALL_TIMEOUT_MS;
    write.timer = limit ? this.#timers.setTimeout(() => this.#writeTimedOut(write, limit), limit) : 0;
    return undefined;
  }

  /**
   * @param {Write} write
   * @param {number} limit
   */
  #writeTimedOut(write, limit) {
    const before = this.#replica.shown;
    this.#replica.take(write.id);
    this.#askForState();
    this.#refuse(write, new StateError(`The state was not acknowledged within ${limit}ms`), before);
  }

  #speakPlain() {
    if (this.#isPlain) return;
    this.#isPlain = true;
    for (const write of [...this.#replica.pending]) {
      if (write.timer !== null) this.#confirm(write, write.state, undefined);
    }
  }

  /** @param {{ state: any, version?: number }} frame */
  #stateReceived({ state, version }) {
    if (version === undefined) this.#speakPlain();
    this.#awaitsState = false;
    this.#replica.receive(state, version);
    this.#tellServerState();
    this.#stateSeen = true;
    if (this.#heldIdentity) this.#identify(this.#heldIdentity);
  }

  /** @param {{ ops: PatchOperation[], base: number, version: number }} frame */
  #patchReceived({ ops, base, version }) {
    if (this.#replica.patch(ops, base, version)) this.#tellServerState();
    else this.#askForState();
  }

  /** A value from the agent shows only when no write of our own is on its way. */
  #tellServerState() {
    if (this.#replica.pending.length === 0) safely(this.#options.onStateUpdate, this.#replica.confirmed, "server");
  }

  #askForState() {
    if (this.#awaitsState || this.readyState !== OPEN) return;
    this.#awaitsState = true;
    this.send('{"type":"cf_agent_state_get"}');
  }

  /** @param {{ write: string, version?: number, state?: any }} frame */
  #writeConfirmed(frame) {
    const write = this.#replica.pending.find(({ id }) => id === frame.write);
    if (write) this.#confirm(write, "state" in frame ? frame.state : write.state, frame.version);
  }

  /**
   * @param {Write} write
   * @param {any} applied What the agent made of the write.
   * @param {number | undefined} version
   */
  #confirm(write, applied, version) {
    const before = this.#replica.shown;
    this.#replica.take(write.id);
    this.#replica.acknowledge(applied, version);
    this.#settle(write);
    this.#tellIfChanged(before);
  }

  /** @param {{ error: string, write?: string, state?: any, version?: number }} frame */
  #writeRejected(frame) {
    const before = this.#replica.shown;
    const write = frame.write === undefined ? undefined : this.#replica.take(frame.write);
    if (write && "state" in frame) this.#replica.receive(frame.state, frame.version);
    // After a drop: the refused write had been applied before the connection broke.
    const wasApplied = write && write.base !== null && "state" in frame && jsonEqual(frame.state, write.state);
    if (write && wasApplied) return this.#settle(write);
    safely(this.#options.onStateUpdateError, frame.error);
    return write && this.#refuse(write, rejection(frame.error, frame.state), before);
  }

  /** @param {Write} write */
  #settle(write) {
    this.#timers.clearTimeout(write.timer);
    for (const { resolve } of write.waiters) resolve();
  }

  /**
   * @param {Write} write
   * @param {Error} error
   * @param {any} shownBefore
   */
  #refuse(write, error, shownBefore) {
    this.#timers.clearTimeout(write.timer);
    for (const { reject } of write.waiters) reject(error);
    this.#tellIfChanged(shownBefore);
  }

  /** @param {string} why */
  #abandonWrites(why) {
    const before = this.#replica.shown;
    for (const write of this.#replica.pending.splice(0)) {
      this.#socket.withdraw(write.outgoing);
      this.#refuse(write, new StateError(why), this.#replica.shown);
    }
    this.#tellIfChanged(before);
  }

  /** @param {any} before */
  #tellIfChanged(before) {
    const { shown } = this.#replica;
    if (!jsonEqual(before, shown)) safely(this.#options.onStateUpdate, shown, "server");
  }

  // ........................................................................................... calls

  get #timers() {
    return this.#options.timers ?? SYSTEM_TIMERS;
  }

  /**
   * Call a method of the agent.
   * @template [T=any]
   * @param {string} method
   * @param {any[]} [args]
   * @param {CallOptions | StreamOptions} [options]
   * @returns {Promise<T>} The result. Rejects with CallFailed, CallTimeout, CallAborted, or the signal's reason.
   */
  call(method, args = [], options) {
    const { stream, timeout, signal } = splitCallOptions(options);
    const standard = stream ? undefined : (this.#options.defaultCallTimeout ?? DEFAULT_CALL_TIMEOUT_MS);
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const call = this.#newCall(method, args, timeout ?? standard, stream);
      Object.assign(call, { resolve, reject });
      return this.#startCall(call, signal);
    });
  }

  /**
   * Call a streaming method and iterate over its chunks.
   * @template [T=any]
   * @param {string} method
   * @param {any[]} [args]
   * @param {{ timeout?: number, signal?: AbortSignal }} [options]
   * @returns {AgentStream<T>}
   */
  stream(method, args = [], { timeout, signal } = {}) {
    return new AgentStream((own) => {
      const signals = [signal, own.signal].filter((one) => one !== undefined);
      return this.call(method, args, { stream: own.stream, signal: AbortSignal.any(signals), timeout });
    });
  }

  /**
   * @param {string} method
   * @param {any[]} args
   * @param {number | undefined} timeout
   * @param {StreamOptions | undefined} stream
   * @returns {PendingCall}
   */
  #newCall(method, args, timeout, stream) {
    const id = randomId();
    const head = `{"type":"rpc","id":"${id}","method":${JSON.stringify(method)},"args":${JSON.stringify(args)}`;
    const nothing = () => {};
    /** @type {PendingCall} */
    const call = {
      ...{ id, method, timeout, stream, transmitted: false, lastSeq: -1, timer: null },
      ...{ resolve: nothing, reject: nothing, release: nothing, startedAt: this.#timers.now() },
      outgoing: {
        size: head.length + 1,
        render: () => `${head}${this.#deadline(call)}}`,
        onSent: () => (call.transmitted = true),
      },
    };
    return call;
  }

  /** @param {PendingCall} call */
  #deadline({ timeout, startedAt }) {
    if (!timeout || this.#isPlain) return "";
    const left = Math.max(1, Math.round(timeout - (this.#timers.now() - startedAt)));
    return `,"deadline_ms":${left}`;
  }

  /**
   * @param {PendingCall} call
   * @param {AbortSignal | undefined} signal
   */
  #startCall(call, signal) {
    const isOver = this.#socket.isExplicitlyClosed || (this.connectionError && this.readyState === CLOSED);
    const cancel = () => this.#cancel(call, signal?.reason);
    call.release = () => {
      this.#timers.clearTimeout(call.timer);
      signal?.removeEventListener("abort", cancel);
    };
    this.#calls.add(call);
    const fate = isOver ? "over" : this.#socket.post(call.outgoing);
    if (isOver) return this.#calls.fail(call, new CallAborted(CLOSED_TEXT, call.method, call.id, false));
    if (fate === "dropped")
      return this.#calls.fail(call, new CallAborted(QUEUE_FULL_TEXT, call.method, call.id, false));
    signal?.addEventListener("abort", cancel, { once: true });
    if (call.timeout) call.timer = this.#timers.setTimeout(() => this.#callTimedOut(call), call.timeout);
    return undefined;
  }

  /** @param {PendingCall} call */
  #callTimedOut(call) {
    this.#socket.withdraw(call.outgoing);
    this.#calls.fail(call, new CallTimeout(call.method, call.timeout ?? 0, call.id));
  }

  /**
   * @param {PendingCall} call
   * @param {unknown} reason
   */
  #cancel(call, reason) {
    this.#socket.withdraw(call.outgoing);
    const canTell = call.transmitted && !this.#isPlain && this.readyState === OPEN;
    if (canTell) this.send(JSON.stringify({ type: "rpc_cancel", id: call.id }));
    this.#calls.cancel(call, reason);
  }
}

/**
 * A rejected promise that does no harm when nobody looks at it.
 * @param {Error} error
 * @returns {Promise<void>}
 */
function refused(error) {
  const promise = Promise.reject(error);
  promise.catch(() => {});
  return promise;
}

/**
 * @param {string} text
 * @param {any} state
 */
function rejection(text, state) {
  return text === READONLY_TEXT ? new ConnectionReadonly() : new StateRejected(text, state);
}

/**
 * Call back into the user's code. An error in it is reported as uncaught, and does not disturb the client.
 * @template {any[]} A
 * @template R
 * @param {((...args: A) => R) | null | undefined} callback
 * @param {A} args
 * @returns {R | undefined}
 */
function safely(callback, ...args) {
  try {
    return callback?.(...args);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
    return undefined;
  }
}

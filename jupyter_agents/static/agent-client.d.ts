/**
 * Tell whether a close stops a client for good: 1008 and 4000–4999.
 * @param {{ code: number }} event
 */
export function isTerminalCloseEvent(event: {
    code: number;
}): boolean;
/**
 * The SDK's spelling of a class name in a URL: `ChatRoom` → `chat-room`, `AIThing` → `a-i-thing`.
 * @param {string} text
 */
export function camelCaseToKebabCase(text: string): string;
/**
 * Make an HTTP request to an agent instance (its `on_request`).
 * @param {AddressOptions & FetchOptions} options
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 */
export function agentFetch(options: AddressOptions & FetchOptions, init?: RequestInit): Promise<Response>;
/**
 * Tell whether two JSON values are equal; the order of keys does not matter.
 * @param {any} a
 * @param {any} b
 * @returns {boolean}
 */
export function jsonEqual(a: any, b: any): boolean;
/**
 * The document after the operations of RFC 6902; the one given is left as it was.
 * @param {any} document
 * @param {PatchOperation[]} operations
 * @returns {any}
 * @throws {Error} when an operation does not fit the document; then none of them counts.
 */
export function applyPatch(document: any, operations: PatchOperation[]): any;
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
export function splitCallOptions(options: CallOptions | StreamOptions | undefined): CallOptions;
/**
 * An object whose every method is a call.
 * @template [T=Record<string, (...args: any[]) => Promise<any>>]
 * @param {(method: string, args: any[]) => unknown} call
 * @returns {T}
 */
export function createStubProxy<T = Record<string, (...args: any[]) => Promise<any>>>(call: (method: string, args: any[]) => unknown): T;
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
export const DEFAULT_CALL_TIMEOUT_MS: 30000;
/** The connection ended and does not come back by itself. */
export class AgentConnectionError extends Error {
    /** @param {{ code: number, reason: string, wasClean: boolean }} event */
    constructor(event: {
        code: number;
        reason: string;
        wasClean: boolean;
    });
    code: number;
    reason: string;
    wasClean: boolean;
}
/** A call did not bring a result. */
export class CallError extends Error {
    /**
     * @param {string} message
     * @param {string} method
     * @param {string} callId
     */
    constructor(message: string, method: string, callId: string);
    method: string;
    callId: string;
}
/** The agent answered with an error; `data` is what its author made public besides the text. */
export class CallFailed extends CallError {
    /**
     * @param {string} message
     * @param {string} method
     * @param {string} callId
     * @param {any} [data]
     */
    constructor(message: string, method: string, callId: string, data?: any);
    data: any;
}
/** No answer came within `milliseconds`. */
export class CallTimeout extends CallError {
    /**
     * @param {string} method
     * @param {number} milliseconds
     * @param {string} callId
     */
    constructor(method: string, milliseconds: number, callId: string);
    milliseconds: number;
}
/** The connection ended first. `transmitted` false: the call was never sent and is safe to repeat. */
export class CallAborted extends CallError {
    /**
     * @param {string} why
     * @param {string} method
     * @param {string} callId
     * @param {boolean} transmitted
     */
    constructor(why: string, method: string, callId: string, transmitted: boolean);
    transmitted: boolean;
}
/** A write of the state did not happen, or nobody knows whether it did. */
export class StateError extends Error {
    /** @param {string} message */
    constructor(message: string);
}
/** The agent refused the write; `reason` says why, `state` is what it has instead. */
export class StateRejected extends StateError {
    /**
     * @param {string} reason
     * @param {any} [state]
     */
    constructor(reason: string, state?: any);
    reason: string;
    state: any;
}
/** This connection may read the state but not change it. */
export class ConnectionReadonly extends StateError {
    constructor();
}
/** `close`, in every runtime (Node 20 and 22 have no CloseEvent). */
export class SocketCloseEvent extends Event {
    /**
     * @param {number} code
     * @param {string} reason
     * @param {boolean} wasClean
     */
    constructor(code: number, reason: string, wasClean: boolean);
    code: number;
    reason: string;
    wasClean: boolean;
}
/** `error`, in every runtime. */
export class SocketErrorEvent extends Event {
    /** @param {Error} error */
    constructor(error: Error);
    error: Error;
    message: string;
}
/**
 * The chunks of one streaming call, for `for await`. Leaving the loop early cancels the call in the agent.
 * @template [T=any]
 * @implements {AsyncIterableIterator<T>}
 */
export class AgentStream<T = any> implements AsyncIterableIterator<T> {
    /** @param {(options: CallOptions) => Promise<any>} start */
    constructor(start: (options: CallOptions) => Promise<any>);
    /** The call's final value; rejects when the stream fails. */
    result: Promise<any>;
    /** @param {any} [reason] */
    cancel(reason?: any): void;
    /** @returns {Promise<IteratorResult<T>>} */
    next(): Promise<IteratorResult<T>>;
    /** @returns {Promise<IteratorResult<T>>} */
    return(): Promise<IteratorResult<T>>;
    [Symbol.asyncIterator](): this;
    #private;
}
declare const AgentClient_base: new () => ClientEventTarget;
/**
 * A connection to one agent instance that heals itself.
 *
 * Where it goes beyond the SDK: `setState` returns a promise that resolves when the agent has taken the value and
 * rejects with the reason when not (the shown state rolls back); `call` takes an `AbortSignal`; `stream` iterates;
 * `ready` rejects when the connection is refused for good; a restart of the server (1012) is followed at once.
 * @template [State=any]
 */
export class AgentClient<State = any> extends AgentClient_base {
    static CONNECTING: number;
    static OPEN: number;
    static CLOSING: number;
    static CLOSED: number;
    /** @param {AgentClientOptions<State>} options */
    constructor(options: AgentClientOptions<State>);
    CONNECTING: number;
    OPEN: number;
    CLOSING: number;
    CLOSED: number;
    /** Kebab-case class name; from the identity frame once it came. @type {string} */ agent: string;
    /** Instance name; from the identity frame once it came. @type {string} */ name: string;
    /** Whether the agent has told who it is, on the present connection. */ identified: boolean;
    /** Whether the agent's kernel is away; messages wait for it. */ suspended: boolean;
    /** Why the connection ended for good. @type {AgentConnectionError | null} */ connectionError: AgentConnectionError | null;
    /** Methods as functions: `client.stub.add(1, 2)`. @type {Record<string, (...args: any[]) => Promise<any>>} */ stub: Record<string, (...args: any[]) => Promise<any>>;
    /** @type {((event: Event) => void) | null} */ onopen: ((event: Event) => void) | null;
    /** @type {((event: MessageEvent) => void) | null} */ onmessage: ((event: MessageEvent) => void) | null;
    /** @type {((event: SocketCloseEvent) => void) | null} */ onclose: ((event: SocketCloseEvent) => void) | null;
    /** @type {((event: SocketErrorEvent) => void) | null} */ onerror: ((event: SocketErrorEvent) => void) | null;
    /**
     * Call a method of the agent.
     * @template [T=any]
     * @param {string} method
     * @param {any[]} [args]
     * @param {CallOptions | StreamOptions} [options]
     * @returns {Promise<T>} The result. Rejects with CallFailed, CallTimeout, CallAborted, or the signal's reason.
     */
    call<T = any>(method: string, args?: any[], options?: CallOptions | StreamOptions): Promise<T>;
    get id(): string;
    get host(): string;
    get path(): string;
    get basePath(): string | undefined;
    get room(): string;
    /** The address without its query. */
    get roomUrl(): string;
    /** The address of the present connection, query and all. @returns {string} */
    get url(): string;
    /** @returns {number} */
    get readyState(): number;
    get retryCount(): number;
    get shouldReconnect(): boolean;
    /** Bytes that `send` took and the network did not get yet. @returns {number} */
    get bufferedAmount(): number;
    /** @returns {string} */
    get extensions(): string;
    /** @returns {string} */
    get protocol(): string;
    set binaryType(value: BinaryType);
    /** @returns {BinaryType} */
    get binaryType(): BinaryType;
    /**
     * Resolves when the agent has told who it is and, if it has a state, that state is here. A new promise after
     * each close. Rejects when the connection ended for good before that.
     * @returns {Promise<void>}
     */
    get ready(): Promise<void>;
    /**
     * Change options. Another address takes effect at the next `reconnect()`: what waited for the old one is rejected.
     * @param {Partial<AgentClientOptions<State>>} changes
     */
    updateProperties(changes: Partial<AgentClientOptions<State>>): void;
    /**
     * Send a message to the agent.
     * @param {Frame} data
     * @returns {boolean} True when it left at once; false when it waits for a connection, or was dropped because the
     *     queue is full (a `dropped` event tells).
     */
    send(data: Frame): boolean;
    /** Take out what waits to be sent. @returns {Frame[]} */
    drainQueuedMessages(): Frame[];
    /**
     * Close for good; pending calls and writes are rejected at once.
     * @param {number} [code] 1000 or 3000–4999.
     * @param {string} [reason] At most 123 bytes.
     */
    close(code?: number, reason?: string): void;
    /**
     * Connect anew, at once, with a fresh back-off.
     * @param {number} [code]
     * @param {string} [reason]
     */
    reconnect(code?: number, reason?: string): void;
    /** The last write, else the value the agent confirmed; undefined before the first. @returns {State | undefined} */
    get state(): State | undefined;
    /** The version of the confirmed state; null when the agent sends none. */
    get stateVersion(): number | null;
    /**
     * Replace the state, here at once and in the agent as soon as it can be told.
     *
     * While connected the last writer wins. A write made offline (only the last of several is kept) goes out with
     * the version it was made upon, and the agent refuses it if the state has changed since.
     * @param {State} state
     * @returns {Promise<void>} Resolves when the agent has taken the value (an SDK server: when it was sent).
     *     Rejects with StateRejected, ConnectionReadonly or StateError; then the shown state has rolled back.
     */
    setState(state: State): Promise<void>;
    /**
     * Call a streaming method and iterate over its chunks.
     * @template [T=any]
     * @param {string} method
     * @param {any[]} [args]
     * @param {{ timeout?: number, signal?: AbortSignal }} [options]
     * @returns {AgentStream<T>}
     */
    stream<T = any>(method: string, args?: any[], { timeout, signal }?: {
        timeout?: number;
        signal?: AbortSignal;
    }): AgentStream<T>;
    #private;
}
/**
 * A frame on its way out. It is rendered when it leaves, because a call's deadline and a write's base depend on it.
 */
export type Outgoing = {
    render: () => Frame;
    size: number;
    onSent?: (() => void) | undefined;
};
export type SocketOwner = {
    destination: () => Promise<{
        url: string;
        protocols: Protocols;
    }>;
    opened: (event: Event) => void;
    received: (event: MessageEvent) => void;
    closed: (event: SocketCloseEvent, final: boolean) => void;
    failed: (event: SocketErrorEvent) => void;
};
export type PendingCall = {
    id: string;
    method: string;
    resolve: (value: any) => void;
    reject: (error: unknown) => void;
    stream: StreamOptions | undefined;
    timeout: number | undefined;
    startedAt: number;
    /**
     * Number of the last chunk; they count from 0.
     */
    lastSeq: number;
    transmitted: boolean;
    outgoing: Outgoing;
    timer: any;
    /**
     * Stops listening to the caller's signal.
     */
    release: () => void;
};
/**
 * What a WebSocket carries in one message.
 */
export type Frame = string | ArrayBuffer | Blob | ArrayBufferView<ArrayBuffer>;
export type Query = Record<string, string | null | undefined>;
export type Protocols = string | string[] | null;
/**
 * The clock a client lives by; tests give their own.
 */
export type Timers = {
    setTimeout: (task: () => void, milliseconds: number) => any;
    clearTimeout: (handle: any) => void;
    /**
     * Milliseconds, from any origin.
     */
    now: () => number;
};
/**
 * Where an agent instance is.
 */
export type AddressOptions = {
    /**
     * Class name (`ChatRoom`) or its kebab form (`chat-room`).
     */
    agent: string;
    /**
     * Instance name; `"default"` when left out.
     */
    name?: string | undefined;
    /**
     * `host[:port]`, with or without a scheme. Left out in a page: the page's own host.
     */
    host?: string | undefined;
    /**
     * What comes before the agent in the path; `"agents"` when left out. Under a Jupyter
     * Server with a `base_url`, for instance `"user/alice/agents"`.
     */
    prefix?: string | undefined;
    /**
     * A whole path instead of prefix, agent and name.
     */
    basePath?: string | undefined;
    /**
     * More path after the name; must not start with a slash.
     */
    path?: string | undefined;
    /**
     * Query values; a function is asked at every connect.
     */
    query?: Query | (() => Query | Promise<Query>) | undefined;
};
export type ClientOptions<State = unknown> = {
    /**
     * Chosen from the host when left out.
     */
    protocol?: "ws" | "wss" | undefined;
    /**
     * WebSocket subprotocols.
     */
    protocols?: Protocols | (() => Protocols | Promise<Protocols>) | undefined;
    /**
     * Connection id, kept over reconnects; a UUID when left out.
     */
    id?: string | undefined;
    /**
     * False speaks the SDK's wire only: no acknowledgements, patches or cancels.
     */
    extended?: boolean | undefined;
    /**
     * The class to use where there is no global one (Node before 22).
     */
    WebSocket?: any;
    /**
     * `"blob"` as in the SDK, or `"arraybuffer"`.
     */
    binaryType?: BinaryType | undefined;
    /**
     * Wait for `reconnect()` before connecting.
     */
    startClosed?: boolean | undefined;
    /**
     * Milliseconds before the first retry, at most; 3000.
     */
    minReconnectionDelay?: number | undefined;
    /**
     * Milliseconds between retries, at most; 10000.
     */
    maxReconnectionDelay?: number | undefined;
    /**
     * 1.3.
     */
    reconnectionDelayGrowFactor?: number | undefined;
    /**
     * True (the default) draws each delay from zero to its bound.
     */
    jitter?: boolean | undefined;
    /**
     * A connection that lived this many milliseconds resets the back-off; 5000.
     */
    minUptime?: number | undefined;
    /**
     * Milliseconds to wait for an open socket; 4000.
     */
    connectionTimeout?: number | undefined;
    /**
     * Unlimited when left out.
     */
    maxRetries?: number | undefined;
    /**
     * Frames kept while not connected; 1000. One more is dropped: `send`
     * returns false and a `dropped` event tells; a call is rejected.
     */
    maxEnqueuedMessages?: number | undefined;
    /**
     * Asked in addition to the final codes.
     */
    shouldReconnectOnClose?: ((event: SocketCloseEvent) => boolean) | undefined;
    /**
     * No warning about a slash in a name.
     */
    disableNameValidation?: boolean | undefined;
    /**
     * Milliseconds for calls and for the acknowledgement of writes; 30000.
     * 0 disables. Streams have none.
     */
    defaultCallTimeout?: number | undefined;
    /**
     * Log what the socket does.
     */
    debug?: boolean | undefined;
    debugLogger?: ((...args: any[]) => void) | undefined;
    /**
     * For tests.
     */
    timers?: Timers | undefined;
    /**
     * For tests: a number from 0 to 1.
     */
    random?: (() => number) | undefined;
    onStateUpdate?: ((state: State, source: "server" | "client") => void) | undefined;
    onStateUpdateError?: ((error: string) => void) | undefined;
    onIdentity?: ((name: string, agent: string) => void) | undefined;
    onIdentityChange?: ((oldName: string, newName: string, oldAgent: string, newAgent: string) => void) | undefined;
    onConnectionError?: ((error: AgentConnectionError) => void) | undefined;
};
export type AgentClientOptions<State = unknown> = AddressOptions & ClientOptions<State>;
export type StreamOptions = {
    onChunk?: ((chunk: any) => void) | undefined;
    onDone?: ((finalChunk: any) => void) | undefined;
    onError?: ((error: string) => void) | undefined;
};
export type CallOptions = {
    /**
     * Milliseconds; 0 disables. It is sent along as the call's deadline.
     */
    timeout?: number | undefined;
    stream?: StreamOptions | undefined;
    /**
     * Aborting cancels the call, in the agent, too.
     */
    signal?: AbortSignal | undefined;
};
export type FetchOptions = {
    protocol?: "http" | "https" | undefined;
    fetch?: typeof fetch | undefined;
};
/**
 * One operation of RFC 6902.
 */
export type PatchOperation = {
    op: "add" | "remove" | "replace" | "move" | "copy" | "test";
    path: string;
    from?: string | undefined;
    value?: any;
};
export type ClientEvents = {
    open: Event;
    /**
     * Every frame, the protocol's own included (as in the SDK).
     */
    message: MessageEvent;
    /**
     * The agent's own messages only.
     */
    data: MessageEvent;
    close: SocketCloseEvent;
    error: SocketErrorEvent;
    /**
     * The kernel went away; the connection stays and messages wait.
     */
    suspended: Event;
    /**
     * The kernel is back.
     */
    resumed: Event;
    /**
     * A frame did not fit into the queue; `event.data` is that frame.
     */
    dropped: MessageEvent;
};
/**
 * A write that the agent has not answered yet.
 */
export type Write = {
    id: string;
    /**
     * The state as JSON.
     */
    text: string;
    state: any;
    /**
     * The version it was made upon; only for writes that were made offline.
     */
    base: number | null;
    waiters: Array<{
        resolve: () => void;
        reject: (error: Error) => void;
    }>;
    /**
     * Null until it was sent.
     */
    timer: any;
    outgoing: Outgoing;
};
export type ClientEventTarget = {
    addEventListener: <K extends keyof ClientEvents>(type: K, listener: ((event: ClientEvents[K]) => void) | null, options?: boolean | AddEventListenerOptions) => void;
    removeEventListener: <K extends keyof ClientEvents>(type: K, listener: ((event: ClientEvents[K]) => void) | null, options?: boolean | EventListenerOptions) => void;
    dispatchEvent: (event: Event) => boolean;
};
export {};

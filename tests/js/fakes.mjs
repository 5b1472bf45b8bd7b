// What the tests of the JavaScript client stand on: a clock that moves by hand and a WebSocket without a network.
import { AgentClient } from "../../jupyter_agents/static/agent-client.js";

/** Let every promise that can settle do so. */
export function settle() {
  return new Promise((resolve) => setImmediate(resolve));
}

export class FakeClock {
  #time = 0;
  #tasks = new Map();
  #next = 1;

  now = () => this.#time;

  setTimeout = (task, delay) => {
    this.#tasks.set(this.#next, { task, at: this.#time + delay });
    return this.#next++;
  };

  clearTimeout = (handle) => {
    this.#tasks.delete(handle);
  };

  /** Milliseconds until each waiting task. */
  get waits() {
    return [...this.#tasks.values()].map(({ at }) => at - this.#time).sort((a, b) => a - b);
  }

  async advance(milliseconds) {
    const end = this.#time + milliseconds;
    await settle();
    for (let due = this.#due(end); due; due = this.#due(end)) {
      const [handle, { task, at }] = due;
      this.#tasks.delete(handle);
      this.#time = Math.max(this.#time, at);
      task();
      await settle();
    }
    this.#time = end;
  }

  #due(end) {
    const due = [...this.#tasks].filter(([, { at }]) => at <= end);
    return due.sort(([, a], [, b]) => a.at - b.at)[0];
  }
}

/** A WebSocket whose other end is the test. */
export function fakeWebSocket() {
  return class FakeWebSocket {
    static all = [];
    static get last() {
      return this.all[this.all.length - 1];
    }

    readyState = 0;
    bufferedAmount = 0;
    extensions = "";
    protocol = "";
    sent = [];
    closedWith = null;

    constructor(url, protocols) {
      this.url = url;
      this.protocols = protocols;
      FakeWebSocket.all.push(this);
    }

    send(data) {
      if (this.readyState !== 1) throw new Error("the fake socket is not open");
      this.sent.push(data);
    }

    close(code, reason) {
      this.readyState = 2;
      this.closedWith = { code, reason };
    }

    // The other end's side
    open() {
      this.readyState = 1;
      this.onopen?.(new Event("open"));
    }

    receive(data) {
      this.onmessage?.({ data: typeof data === "object" && data?.type ? JSON.stringify(data) : data });
    }

    drop(code = 1006, reason = "") {
      this.readyState = 3;
      this.onclose?.({ code, reason, wasClean: code !== 1006 });
    }

    get frames() {
      return this.sent.map((text) => JSON.parse(text));
    }
  };
}

/** A client on a fake clock and fake sockets; nothing happens by itself. */
export function makeClient(options = {}) {
  const clock = new FakeClock();
  const WebSocket = fakeWebSocket();
  const client = new AgentClient({
    agent: "ChatRoom",
    name: "lobby",
    host: "localhost:8888",
    WebSocket,
    timers: clock,
    random: () => 1,
    ...options,
  });
  return { client, clock, WebSocket };
}

export function identity(changes = {}) {
  return { type: "cf_agent_identity", name: "lobby", agent: "chat-room", ...changes };
}

/** Connected, identified and, when a state is given, in possession of it. */
export async function openClient({ state, version = 1, ...options } = {}) {
  const made = makeClient(options);
  await openNext(made, { state, version });
  return made;
}

/** Open the socket that the client is about to make, as the agent would. */
export async function openNext({ clock, WebSocket }, { state, version = 1, wait = 0 } = {}) {
  await clock.advance(wait);
  const socket = WebSocket.last;
  socket.open();
  socket.receive(identity(state === undefined ? {} : { stateFollows: true }));
  if (state !== undefined) socket.receive({ type: "cf_agent_state", state, version });
  await settle();
  return socket;
}

/** The reason a promise was rejected with; fails when it was not. */
export async function rejection(promise) {
  return promise.then(
    (value) => {
      throw new Error(`resolved with ${JSON.stringify(value)}`);
    },
    (error) => error,
  );
}

/** "pending", "resolved" or "rejected", now. */
export async function fate(promise) {
  let word = "pending";
  promise.then(
    () => (word = "resolved"),
    () => (word = "rejected"),
  );
  await settle();
  return word;
}

/** Collect console.warn while the test runs. */
export function captureWarnings(context) {
  const warnings = [];
  context.mock.method(console, "warn", (text) => warnings.push(text));
  return warnings;
}

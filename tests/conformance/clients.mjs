// The clients under test behind one face, so that one list of scenarios drives them all.
import WebSocketClass from "ws";

const PROTOCOL_TYPES = new Set([
  "cf_agent_identity",
  "cf_agent_state",
  "cf_agent_state_error",
  "cf_agent_mcp_servers",
  "rpc",
]);

/** Values that somebody will wait for. */
export class Inbox {
  #values = [];
  #readers = [];

  put(value) {
    const reader = this.#readers.shift();
    if (reader) reader(value);
    else this.#values.push(value);
  }

  get left() {
    return this.#values;
  }

  take() {
    if (this.#values.length > 0) return Promise.resolve(this.#values.shift());
    return new Promise((resolve) => this.#readers.push(resolve));
  }
}

/** What a client was told, in order. */
class Told {
  messages = new Inbox();
  closes = new Inbox();
  opens = new Inbox();
  updates = [];
  stateErrors = [];
  identity = null;

  get callbacks() {
    return {
      onStateUpdate: (_state, source) => this.updates.push(source),
      onStateUpdateError: (text) => this.stateErrors.push(text),
      onIdentity: (name, agent) => (this.identity = { name, agent }),
    };
  }

  closed({ code, reason }) {
    this.closes.put({ code, reason });
  }
}

const PACE = { minReconnectionDelay: 50, maxReconnectionDelay: 200, minUptime: 100 };

/** The agent's own messages among all frames, as the SDK leaves it to its users. */
function isOwn(data) {
  if (typeof data !== "string") return true;
  try {
    return !PROTOCOL_TYPES.has(JSON.parse(data)?.type);
  } catch {
    return true;
  }
}

const options = (place, told) => ({ ...PACE, ...place, ...told.callbacks, WebSocket: WebSocketClass });

async function ours() {
  const { AgentClient, agentFetch } = await import("../../jupyter_agents/static/agent-client.js");
  const open = (place) => {
    const told = new Told();
    const client = new AgentClient({ ...options(place, told), binaryType: "arraybuffer" });
    client.addEventListener("open", () => told.opens.put(true));
    client.addEventListener("close", (event) => told.closed(event));
    client.addEventListener("data", ({ data }) => told.messages.put(data));
    return { dialect: "extended", told, current: () => client, stop: () => client.close() };
  };
  return { open, agentFetch };
}

async function sdk() {
  const { AgentClient, agentFetch } = await import("agents/client");
  const open = (place) => {
    const told = new Told();
    const client = new AgentClient(options(place, told));
    client.binaryType = "arraybuffer";
    client.addEventListener("open", () => told.opens.put(true));
    client.addEventListener("close", (event) => told.closed(event));
    client.addEventListener("message", ({ data }) => isOwn(data) && told.messages.put(data));
    return { dialect: "plain", told, current: () => client, stop: () => client.close() };
  };
  return { open, agentFetch };
}

/** `useAgent` in a component of a page that jsdom plays. */
async function react() {
  const { JSDOM } = await import("jsdom");
  const { window } = new JSDOM("<!doctype html><body></body>", { url: "http://localhost/" });
  Object.assign(globalThis, { window, document: window.document });
  globalThis.navigator ??= window.navigator; // Node 20 has none, and later ones keep theirs
  const [{ createElement }, { flushSync }, { createRoot }, { useAgent }, { agentFetch }] = await Promise.all([
    import("react"),
    import("react-dom"),
    import("react-dom/client"),
    import("agents/react"),
    import("agents/client"),
  ]);
  const open = (place) => {
    const told = new Told();
    const handlers = {
      onOpen: () => told.opens.put(true),
      onClose: (event) => told.closed(event),
      onMessage: ({ data }) => told.messages.put(data),
    };
    let agent;
    let shown;
    const Component = () => {
      agent = useAgent({ ...options(place, told), ...handlers });
      agent.binaryType = "arraybuffer";
      shown = agent.state;
      return null;
    };
    const root = createRoot(window.document.createElement("div"));
    flushSync(() => root.render(createElement(Component)));
    const stop = () => root.unmount();
    return { dialect: "plain", told, current: () => agent, rendered: () => shown, stop };
  };
  return { open, agentFetch };
}

/** Our client and the SDK's on one instance: A and C are the SDK's. */
async function mixed() {
  const [mine, theirs] = [await ours(), await sdk()];
  const open = (place, letter) => (letter === "B" ? mine : theirs).open(place);
  return { open, agentFetch: mine.agentFetch };
}

export const KINDS = { ours, sdk, react, mixed };

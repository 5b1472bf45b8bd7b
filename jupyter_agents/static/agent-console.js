/**
 * The page that is already there: what an agent instance's own address shows in a browser.
 *
 * It wires the views to one AgentClient and holds no state of its own. A token in the address is handed to the
 * sign-in and taken out of sight at once; everything else in the query reaches the agent.
 * @module agent-console
 */
import { AgentClient, ConnectionReadonly } from "./agent-client.js";
import { mountCallForm } from "./call-form.js";
import { h } from "./dom.js";
import { mountMessageLog } from "./message-log.js";
import { mountStateTree } from "./state-tree.js";

/** @typedef {import("./call-form.js").Callable} Callable */

/**
 * An element of the page; the page and this module belong together.
 * @param {string} id
 * @returns {any}
 */
const byId = (id) => document.getElementById(id);

const HISTORY_LIMIT = 50;

/** The credentials of this server that an address may carry; what only has their name is the agent's. */
const LINK = /^jas\.[0-9a-f]{8}\./;

/** What the page's address says: the query for the agent, and the token or link, which leave the address bar. */
function readAddress() {
  const query = Object.fromEntries(new URLSearchParams(location.search));
  const { token, share, _pk, _ja, ...others } = query;
  const link = LINK.test(share ?? "") ? share : undefined;
  const rest = { ...others, ...(share !== undefined && link === undefined ? { share } : {}) };
  if (token !== undefined || link !== undefined) {
    const search = new URLSearchParams(rest).toString();
    history.replaceState(history.state, "", location.pathname + (search ? `?${search}` : "") + location.hash);
  }
  const secrets = { ...(token === undefined ? {} : { token }), ...(link === undefined ? {} : { share: link }) };
  return { query: { ...rest, ...secrets }, token, link };
}

/**
 * What the agent tells about itself, or nothing: the page works without.
 * @param {{ baseUrl?: string }} place
 * @param {AgentClient} client
 * @param {string | undefined} token
 * @returns {Promise<{ callables?: Callable[], state_kind?: string }>}
 */
async function fetchDescription({ baseUrl = "/" }, client, token) {
  const headers = { Accept: "application/json", ...(token ? { Authorization: `token ${token}` } : {}) };
  const path = [client.agent, client.name].map(encodeURIComponent).join("/");
  try {
    const response = await fetch(`${baseUrl}api/agents/${path}`, { headers });
    return response.ok ? await response.json() : {};
  } catch {
    return {};
  }
}

/** The pill that says how the connection is. */
function makeStatus() {
  const pill = byId("status");
  const button = byId("reconnect");
  /**
   * @param {"open" | "waiting" | "closed"} look
   * @param {string} text
   * @param {boolean} [canReconnect]
   */
  return (look, text, canReconnect = false) => {
    pill.dataset.look = look;
    if (pill.textContent !== text) pill.textContent = text;
    button.hidden = !canReconnect;
  };
}

/** On a phone one panel is shown at a time. */
function setUpTabs() {
  const tabs = /** @type {HTMLElement[]} */ ([...document.querySelectorAll('[role="tab"]')]);
  const select = (/** @type {HTMLElement} */ chosen) => {
    for (const tab of tabs) {
      const isChosen = tab === chosen;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      byId(tab.getAttribute("aria-controls") ?? "").classList.toggle("is-shown", isChosen);
    }
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", ({ key }) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
      if (!step) return;
      const next = tabs[(index + step + tabs.length) % tabs.length];
      select(next);
      next.focus();
    });
  });
  select(tabs[0]);
}

/**
 * The box that sends: text, or a file as binary; arrow up brings back what was sent.
 * @param {(data: string | ArrayBuffer) => void} send
 */
function setUpSending(send) {
  const draft = byId("draft");
  const file = byId("file");
  /** @type {string[]} */
  const history = [];
  let at = 0;
  const recall = (/** @type {number} */ step) => {
    at = Math.min(history.length, Math.max(0, at + step));
    draft.value = history[at] ?? "";
  };
  byId("send").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    send(draft.value);
    history.push(draft.value);
    if (history.length > HISTORY_LIMIT) history.shift();
    at = history.length;
    draft.value = "";
  });
  draft.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const isOneLine = !draft.value.includes("\n");
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      byId("send").requestSubmit();
    } else if (event.key === "ArrowUp" && isOneLine && at > 0) recall(-1);
    else if (event.key === "ArrowDown" && isOneLine && at < history.length) recall(1);
  });
  byId("attach").addEventListener("click", () => file.click());
  file.addEventListener("change", async () => {
    for (const one of file.files ?? []) send(await one.arrayBuffer());
    file.value = "";
  });
}

/** @param {AgentClient} client */
function setUpState(client) {
  const problem = byId("state-problem");
  const button = byId("edit-json");
  const write = async (/** @type {any} */ value) => {
    problem.textContent = "";
    try {
      await client.setState(value);
    } catch (error) {
      problem.textContent = `Not changed: ${/** @type {Error} */ (error).message}`;
      if (error instanceof ConnectionReadonly) tree.update({ readonly: true });
    }
  };
  const showMode = (/** @type {"tree" | "text"} */ mode) => {
    button.textContent =
      mode === "text" ? "Back to the tree" : client.state === undefined ? "Set state" : "Edit as JSON";
    button.dataset.mode = mode;
    tree.update({ mode, value: client.state });
  };
  const tree = mountStateTree(byId("tree"), {
    value: client.state,
    onChange: write,
    onDone: () => showMode("tree"),
  });
  button.addEventListener("click", () => showMode(button.dataset.mode === "text" ? "tree" : "text"));
  return {
    show() {
      tree.update({ value: client.state });
      byId("version").textContent = client.stateVersion === null ? "" : `version ${client.stateVersion}`;
      if (button.dataset.mode !== "text") showMode("tree");
    },
    forgive() {
      problem.textContent = "";
      tree.update({ readonly: false });
    },
    /** @param {string | undefined} kind */
    setKind: (kind) => tree.update({ fixedKeys: kind === "typed" || kind === "traits" }),
  };
}

/** @param {AgentClient} client */
function setUpCalls(client) {
  const place = byId("forms");
  /** @type {Map<string, { element: HTMLElement, form: ReturnType<typeof mountCallForm> }>} */
  const forms = new Map();
  /** @type {import("./call-form.js").CallFormProps["call"]} */
  const call = (method, args, { signal, onChunk }) => client.call(method, args, { signal, stream: { onChunk } });

  const showOne = (/** @type {Callable} */ callable, /** @type {boolean} */ open) => {
    const known = forms.get(callable.name);
    if (known) known.form.update({ callable });
    const element = known?.element ?? h("div");
    const form = known?.form ?? mountCallForm(element, { callable, call, open });
    forms.set(callable.name, { element, form });
    return element;
  };
  return (/** @type {Callable[] | undefined} */ callables) => {
    if (!callables && forms.size > 0) return undefined; // what was known may still be right
    callables ??= [{ name: "" }]; // nothing is known: the user names the method
    for (const [name, { form }] of forms) {
      if (callables.some((one) => one.name === name)) continue;
      form.destroy();
      forms.delete(name);
    }
    const nothing = h("p", { class: "ja-hint" }, "This agent has no callable methods.");
    const elements = callables.map((callable, index) => showOne(callable, index === 0));
    return place.replaceChildren(...(elements.length > 0 ? elements : [nothing]));
  };
}

/** @param {AgentClient} client */
async function copyAddress(client) {
  const button = byId("copy");
  try {
    await navigator.clipboard.writeText(client.roomUrl);
    button.textContent = "Copied";
  } catch {
    window.prompt("The agent's address", client.roomUrl); // no clipboard on plain http
  }
  setTimeout(() => (button.textContent = "Copy address"), 1500);
}

function start() {
  const { query, token, link } = readAddress();
  const place = document.documentElement.dataset;
  const status = makeStatus();
  const log = mountMessageLog(byId("log"));
  const note = (/** @type {string} */ data) => log.add({ direction: "note", data });
  const client = new AgentClient({
    agent: place.agent ?? "",
    name: place.name,
    basePath: location.pathname,
    query,
    binaryType: "arraybuffer",
    onStateUpdate: () => state.show(),
    onIdentity: () => void identified(),
    onIdentityChange: () => {},
    onConnectionError: (error) => {
      const why = [error.code, error.reason].filter(Boolean).join(" ");
      status("closed", `Closed: ${why}`, true);
    },
  });
  const state = setUpState(client);
  const showCallables = setUpCalls(client);

  const describe = async () => {
    // a link opens this agent and not the server's own view of it
    const { callables, state_kind } = link ? {} : await fetchDescription(place, client, token);
    showCallables(callables);
    state.setKind(state_kind);
  };
  const identified = async () => {
    byId("name").textContent = client.name;
    byId("agent").textContent = client.agent;
    document.title = `${client.name} · ${client.agent}`;
    await describe();
  };

  client.addEventListener("open", () => {
    status("open", "Connected");
    note("Connected");
    state.forgive();
  });
  client.addEventListener("close", ({ code, reason }) => {
    if (!client.connectionError) status("waiting", "Reconnecting…", true);
    note(["Disconnected", code, reason].filter(Boolean).join(" "));
  });
  client.addEventListener("suspended", () => {
    status("waiting", "Kernel away, messages wait");
    note("The kernel went away; what is sent now waits for it");
  });
  client.addEventListener("resumed", () => {
    status("open", "Connected");
    note("The kernel is back");
    void describe();
  });
  client.addEventListener("data", ({ data }) => log.add({ direction: "in", data }));

  setUpTabs();
  setUpSending((data) => log.add({ direction: "out", data, isWaiting: !client.send(data) }));
  byId("clear").addEventListener("click", () => log.clear());
  byId("reconnect").addEventListener("click", () => {
    status("waiting", "Connecting…");
    client.reconnect();
  });
  byId("copy").addEventListener("click", () => void copyAddress(client));
  state.show();
  void describe();
}

start();

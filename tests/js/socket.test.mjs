// The socket that heals itself: queue, back-off, close, addresses (FEATURES T131-T149).
import assert from "node:assert/strict";
import { test } from "node:test";

import { AgentClient, agentFetch, camelCaseToKebabCase } from "../../jupyter_agents/static/agent-client.js";
import { captureWarnings, fate, makeClient, openClient, openNext, rejection, settle } from "./fakes.mjs";

const urlOf = async (options) => {
  const { clock, WebSocket } = makeClient({ id: "me", extended: false, ...options });
  await clock.advance(0);
  return WebSocket.last.url;
};

test("T131 messages sent before open are flushed in order, before the open event", async () => {
  const made = makeClient();
  made.client.send("one");
  made.client.send("two");
  let seenAtOpen;
  made.client.addEventListener("open", () => (seenAtOpen = [...made.WebSocket.last.sent]));
  await openNext(made);
  assert.deepEqual(seenAtOpen, ["one", "two"]);
});

test("send says whether the message left at once", async () => {
  const made = makeClient();
  assert.equal(made.client.send("early"), false);
  await openNext(made);
  assert.equal(made.client.send("now"), true);
});

test("T132 a full queue drops the newest message and says so", async () => {
  const made = makeClient({ maxEnqueuedMessages: 2 });
  const dropped = [];
  made.client.addEventListener("dropped", (event) => dropped.push(event.data));
  const sent = ["a", "b", "c"].map((text) => made.client.send(text));
  assert.deepEqual([sent, dropped], [[false, false, false], ["c"]]);
  assert.deepEqual((await openNext(made)).sent, ["a", "b"]);
});

test("T133 bufferedAmount counts text, binary and what the socket still holds", async () => {
  const { client } = makeClient();
  client.send("four");
  client.send(new Uint8Array(8));
  client.send(new Uint8Array(3).buffer);
  client.send(new Blob(["12"]));
  assert.equal(client.bufferedAmount, 17);
  const open = await openClient();
  open.WebSocket.last.bufferedAmount = 5;
  assert.equal(open.client.bufferedAmount, 5);
});

test("T134 drainQueuedMessages returns what waits and empties the queue", async () => {
  const made = makeClient();
  made.client.send("one");
  assert.deepEqual(made.client.drainQueuedMessages(), ["one"]);
  assert.deepEqual((await openNext(made)).sent, []);
});

test("T135 closing while connecting fires close at once and leaves the state CLOSED", async () => {
  const { client, clock, WebSocket } = makeClient();
  await clock.advance(0);
  const events = [];
  client.onclose = (event) => events.push([event.code, event.reason]);
  client.close(4100, "bye");
  assert.deepEqual(events, [[4100, "bye"]]);
  assert.equal(client.readyState, AgentClient.CLOSED);
  assert.deepEqual(WebSocket.last.closedWith, { code: 4100, reason: "bye" });
});

test("T136 closing twice fires one event, and the socket's own close adds none", async () => {
  const { client, WebSocket } = await openClient();
  let count = 0;
  client.addEventListener("close", () => (count += 1));
  client.close();
  client.close();
  WebSocket.last.drop(1000);
  assert.equal(count, 1);
});

test("T137 closing before any socket exists is harmless, and none is made later", async () => {
  const { client, clock, WebSocket } = makeClient();
  client.close();
  await clock.advance(60000);
  assert.deepEqual([client.readyState, WebSocket.all.length, clock.waits.length], [3, 0, 0]);
});

test("a close code or reason that WebSocket would refuse changes nothing", async () => {
  const { client } = await openClient();
  assert.throws(() => client.close(1001), RangeError);
  assert.throws(() => client.close(1000, "é".repeat(62)), RangeError);
  assert.equal(client.readyState, client.OPEN);
});

test("an explicit close is no error", async () => {
  const { client } = await openClient();
  const { ready } = client;
  client.close();
  assert.equal(client.connectionError, null);
  assert.equal(await fate(ready), "resolved");
  assert.equal((await rejection(client.ready)).message, "Connection closed");
});

test("T138 a limit of k retries means exactly k, and reconnect() counts anew", async () => {
  const { client, clock, WebSocket } = makeClient({ maxRetries: 2 });
  const fail = async () => {
    await clock.advance(20000);
    WebSocket.last.drop(1006);
  };
  for (let i = 0; i < 3; i++) await fail();
  await clock.advance(60000);
  assert.equal(WebSocket.all.length, 3);
  assert.equal(client.connectionError.code, 1006);
  client.reconnect();
  assert.equal(client.connectionError, null);
  for (let i = 0; i < 3; i++) await fail();
  await clock.advance(60000);
  assert.equal(WebSocket.all.length, 6);
});

const delaysOf = async (made, drops) => {
  const delays = [];
  for (const { code = 1006, uptime = null } of drops) {
    if (uptime !== null) made.WebSocket.last.open();
    await made.clock.advance(uptime ?? 0);
    made.WebSocket.last.drop(code);
    delays.push(Math.round(made.clock.waits[0]));
    await made.clock.advance(made.clock.waits[0]);
  }
  return delays;
};

test("delays grow by 1.3 from 3 s and stop at 10 s", async () => {
  const made = makeClient();
  await made.clock.advance(0);
  assert.deepEqual(await delaysOf(made, Array(7).fill({})), [3000, 3900, 5070, 6591, 8568, 10000, 10000]);
});

test("full jitter draws each delay from zero to its bound", async () => {
  const draws = [0, 0.5, 1];
  const made = makeClient({ random: () => draws.shift() ?? 0 });
  await made.clock.advance(0);
  draws.splice(0, 3, 0, 0.5, 1);
  assert.deepEqual(await delaysOf(made, [{}, {}, {}]), [0, 1950, 5070]);
});

test("jitter can be switched off", async () => {
  const made = makeClient({ random: () => 0, jitter: false });
  await made.clock.advance(0);
  assert.deepEqual(await delaysOf(made, [{}, {}]), [3000, 3900]);
});

test("T139 dying before the minimum uptime keeps the back-off growing; a long life resets it", async () => {
  const made = makeClient();
  await made.clock.advance(0);
  const drops = [{ uptime: 10 }, { uptime: 10 }, { uptime: 4999 }, { uptime: 5000 }, { uptime: 10 }];
  assert.deepEqual(await delaysOf(made, drops), [3000, 3900, 5070, 3000, 3900]);
});

test("a service restart (1012) is followed at once, but not in a tight loop", async () => {
  const made = makeClient();
  await made.clock.advance(0);
  const drops = [{ uptime: 9000, code: 1012 }, { uptime: 0, code: 1012 }, { code: 1012 }, { uptime: 9000, code: 1012 }];
  assert.deepEqual(await delaysOf(made, drops), [0, 3900, 5070, 0]);
});

test("try again later (1013) waits at least half of the longest delay", async () => {
  const made = makeClient({ random: () => 0 });
  await made.clock.advance(0);
  assert.deepEqual(await delaysOf(made, [{ code: 1013 }]), [5000]);
});

for (const [what, query] of [
  [
    "throws",
    () => {
      throw new Error("no token");
    },
  ],
  [
    "rejects",
    async () => {
      throw new Error("no token");
    },
  ],
  ["gives a wrong type", () => "token=1"],
]) {
  test(`T140 a query function that ${what} is an error event and a retry, never a stuck lock`, async () => {
    let broken = true;
    const made = makeClient({ query: () => (broken ? query() : { token: "t" }) });
    const errors = [];
    made.client.onerror = (event) => errors.push(event.message);
    await made.clock.advance(0);
    assert.equal(errors.length, 1);
    broken = false;
    await openNext(made, { wait: 3000 });
    assert.match(made.WebSocket.last.url, /token=t$/);
  });
}

test("T140 a query that never works ends with the retries, and the client says so", async () => {
  const made = makeClient({ maxRetries: 1, query: () => Promise.reject(new Error("no token")) });
  const call = rejection(made.client.call("add"));
  await made.clock.advance(60000);
  assert.equal(made.client.connectionError.code, 1006);
  assert.equal((await call).transmitted, false);
});

test("T140 a WebSocket class that throws is an error event and a retry", async () => {
  let attempts = 0;
  class Broken {
    constructor() {
      attempts += 1;
      throw new SyntaxError("bad url");
    }
  }
  const made = makeClient({ WebSocket: Broken });
  const errors = [];
  made.client.addEventListener("error", (event) => errors.push(event.error.message));
  await made.clock.advance(3000);
  assert.deepEqual([attempts, errors], [2, ["bad url", "bad url"]]);
});

test("T141 a connect timeout is an error event, a close event and a retry", async () => {
  const { client, clock, WebSocket } = makeClient();
  const seen = [];
  client.onerror = (event) => seen.push(event.message);
  client.onclose = (event) => seen.push(event.code);
  await clock.advance(4000);
  assert.deepEqual(seen, ["TIMEOUT", 1006]);
  const [late] = WebSocket.all;
  late.open(); // too late: nobody listens any more
  assert.notEqual(client.readyState, client.OPEN);
  await clock.advance(3000);
  assert.equal(WebSocket.all.length, 2);
});

test("T142 rapid repeated reconnect() leaves one socket", async () => {
  const made = await openClient();
  for (let i = 0; i < 5; i++) made.client.reconnect();
  await made.clock.advance(60);
  assert.equal(made.WebSocket.all.length, 2);
  assert.deepEqual(made.WebSocket.all[0].closedWith, { code: 1000, reason: "" });
});

test("T142 a slow query of an overtaken attempt opens no second socket", async () => {
  const waiting = [];
  const made = makeClient({ query: () => new Promise((resolve) => waiting.push(resolve)) });
  await made.clock.advance(0);
  made.client.reconnect();
  await made.clock.advance(0);
  for (const resolve of waiting) resolve({});
  await settle();
  assert.equal(made.WebSocket.all.length, 1);
});

test("T143 a path that starts with a slash is an error", () => {
  assert.throws(() => makeClient({ path: "/x" }), /must not start with a slash/);
});

test("T144 a host is cleaned of scheme and trailing slash", async () => {
  assert.equal(await urlOf({ host: "http://localhost:8888/" }), "ws://localhost:8888/agents/chat-room/lobby?_pk=me");
});

test("a scheme in the host decides between ws and wss", async () => {
  assert.match(await urlOf({ host: "http://lab.example.org" }), /^ws:/);
  assert.match(await urlOf({ host: "https://localhost:8888" }), /^wss:/);
});

for (const [host, scheme] of [
  ["localhost:1999", "ws"],
  ["127.0.0.1:1999", "ws"],
  ["192.168.1.5", "ws"],
  ["10.0.0.1:80", "ws"],
  ["172.16.0.1", "ws"],
  ["172.31.255.1:8888", "ws"],
  ["[::1]:8888", "ws"],
  ["172.15.0.1", "wss"],
  ["172.32.0.1", "wss"],
  ["172.2.0.1", "wss"],
  ["example.com", "wss"],
  ["10gen.com", "wss"],
]) {
  test(`T145 ${host} is reached by ${scheme}`, async () => {
    assert.ok((await urlOf({ host })).startsWith(`${scheme}://${host}/`));
  });
}

test("the page that the host served decides for its own host", async (context) => {
  const location = { host: "lab.lan:8888", protocol: "http:" };
  Object.defineProperty(globalThis, "location", { value: location, configurable: true });
  context.after(() => delete globalThis.location);
  assert.match(await urlOf({ host: undefined }), /^ws:\/\/lab\.lan:8888\/agents/);
  assert.match(await urlOf({ host: "other.lan:8888" }), /^wss:/);
});

test("without a host and outside a page the client says what is missing", () => {
  assert.throws(() => makeClient({ host: undefined }), /host is required/);
});

test("protocol overrules the choice", async () => {
  assert.match(await urlOf({ protocol: "wss" }), /^wss:\/\/localhost/);
});

test("T146 basePath wins over prefix, agent and name", async () => {
  const url = await urlOf({ basePath: "user", prefix: "x", path: "settings" });
  assert.equal(url, "ws://localhost:8888/user/settings?_pk=me");
});

test("the prefix may have several segments, and stray slashes do not matter", async () => {
  assert.match(await urlOf({ prefix: "/user/alice/agents/" }), /:8888\/user\/alice\/agents\/chat-room\/lobby\?/);
});

test("T147 null and undefined query values are left out", async () => {
  const query = { a: "1", b: null, c: undefined, d: "" };
  assert.match(await urlOf({ query }), /\?_pk=me&a=1&d=$/);
});

test("T127 a query function, also async, is asked at every connect", async () => {
  let n = 0;
  const made = await openClient({ query: async () => ({ token: `t${++n}` }) });
  assert.match(made.WebSocket.last.url, /token=t1/);
  made.WebSocket.last.drop();
  await openNext(made, { wait: 3000 });
  assert.match(made.WebSocket.last.url, /token=t2/);
});

test("the connection id stays the same over reconnects, and the extension is asked for", async () => {
  const made = await openClient();
  made.WebSocket.last.drop();
  await openNext(made, { wait: 3000 });
  const queries = made.WebSocket.all.map(({ url }) => new URL(url).searchParams);
  assert.deepEqual(
    queries.map((query) => query.get("_pk")),
    [made.client.id, made.client.id],
  );
  assert.deepEqual(
    queries.map((query) => query.get("_ja")),
    ["1", "1"],
  );
  assert.match(made.client.id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("T148 a name with a slash warns, unless told not to, and is one segment of the URL", async (context) => {
  const warnings = captureWarnings(context);
  assert.match(await urlOf({ name: "a/b" }), /chat-room\/a%2Fb\?/);
  assert.match(warnings[0], /"a\/b" contains a slash/);
  makeClient({ name: "a/b", disableNameValidation: true });
  assert.equal(warnings.length, 1);
});

test("names with characters of the URL's own arrive as they are", async () => {
  const name = "Zoë's 100% café? #1";
  const url = new URL(await urlOf({ name }));
  assert.equal(decodeURIComponent(url.pathname.split("/").pop()), name);
});

test("T149 after a restart of the server the client is back and the order of messages is kept", async () => {
  const made = await openClient();
  made.WebSocket.last.drop(1001);
  const sent = Array.from({ length: 500 }, (_, i) => String(i));
  for (const text of sent) made.client.send(text);
  assert.deepEqual((await openNext(made, { wait: 3000 })).sent, sent);
});

test("T123 no name means default, and class names become kebab-case", async () => {
  const { client } = makeClient({ name: undefined, agent: "MyHTTPAgent2" });
  assert.deepEqual([client.name, client.agent], ["default", "my-h-t-t-p-agent2"]);
});

for (const [given, wanted] of [
  ["ChatAgent", "chat-agent"],
  ["AIThing", "a-i-thing"],
  ["MyHTTPAgent2", "my-h-t-t-p-agent2"],
  ["MY_UPPER", "my-upper"],
  ["chat-room", "chat-room"],
  ["Under_score", "under-score"],
  ["Trailing_", "trailing"],
]) {
  test(`T123 ${given} is ${wanted} in a URL`, () => assert.equal(camelCaseToKebabCase(given), wanted));
}

test("startClosed waits for reconnect(), and calls made before it go out then", async () => {
  const made = makeClient({ startClosed: true });
  await made.clock.advance(60000);
  assert.deepEqual([made.client.readyState, made.WebSocket.all.length], [3, 0]);
  const call = rejection(made.client.call("add"));
  made.client.reconnect();
  assert.equal((await openNext(made)).frames[0].method, "add");
  made.client.close();
  await call;
});

test("send after close warns once and leaves with the next reconnect()", async (context) => {
  const warnings = captureWarnings(context);
  const made = await openClient();
  made.client.close();
  made.client.send("a");
  made.client.send("b");
  assert.equal(warnings.length, 1);
  made.client.reconnect();
  assert.deepEqual((await openNext(made)).sent, ["a", "b"]);
});

test("coming back online retries at once", async (context) => {
  const listeners = new EventTarget();
  const add = listeners.addEventListener.bind(listeners);
  const remove = listeners.removeEventListener.bind(listeners);
  Object.assign(globalThis, { addEventListener: add, removeEventListener: remove });
  context.after(() => ["addEventListener", "removeEventListener"].forEach((name) => delete globalThis[name]));
  const made = await openClient();
  made.WebSocket.last.drop();
  listeners.dispatchEvent(new Event("online"));
  await settle();
  assert.equal(made.WebSocket.all.length, 2);
  await openNext(made);
  listeners.dispatchEvent(new Event("online")); // connected: nothing to do
  await settle();
  assert.equal(made.WebSocket.all.length, 2);
  const removed = context.mock.method(globalThis, "removeEventListener");
  made.client.close();
  assert.deepEqual([removed.mock.callCount(), removed.mock.calls[0].arguments[0]], [1, "online"]);
});

test("every frame is a message event; only the agent's own are data events", async () => {
  const { client, WebSocket } = await openClient();
  const [messages, data] = [[], []];
  client.addEventListener("message", (event) => messages.push(event.data));
  client.addEventListener("data", (event) => data.push(event.data));
  const bytes = new Uint8Array([1, 2]).buffer;
  for (const frame of ["hello", "", "{bad", "null", "7", '{"type":"mine"}', bytes]) WebSocket.last.receive(frame);
  WebSocket.last.receive({ type: "cf_agent_identity", name: "lobby", agent: "chat-room" });
  assert.deepEqual(data, ["hello", "", "{bad", "null", "7", '{"type":"mine"}', bytes]);
  assert.equal(messages.length, 8);
});

test("the kernel going away and coming back are events of their own", async () => {
  const { client, WebSocket } = await openClient();
  const seen = [];
  for (const type of ["suspended", "resumed"]) client.addEventListener(type, () => seen.push([type, client.suspended]));
  WebSocket.last.receive({ type: "cf_agent_suspended" });
  WebSocket.last.receive({ type: "cf_agent_resumed" });
  assert.deepEqual(seen, [
    ["suspended", true],
    ["resumed", false],
  ]);
});

test("subprotocols and binaryType reach the socket", async () => {
  const { client, WebSocket } = await openClient({ protocols: async () => ["a"], binaryType: "arraybuffer" });
  assert.deepEqual([WebSocket.last.protocols, WebSocket.last.binaryType], [["a"], "arraybuffer"]);
  client.binaryType = "blob";
  assert.equal(WebSocket.last.binaryType, "blob");
});

test("T126 agentFetch reaches the same instance by HTTP, with path, query and init", async () => {
  const asked = [];
  const fetch = async (url, init) => asked.push([url, init]);
  const place = { agent: "ChatRoom", name: "lobby", host: "localhost:8888", fetch };
  await agentFetch({ ...place, path: "status", query: async () => ({ q: "1" }) }, { method: "POST", body: "x" });
  await agentFetch({ ...place, basePath: "user" });
  assert.deepEqual(asked, [
    ["http://localhost:8888/agents/chat-room/lobby/status?q=1", { method: "POST", body: "x" }],
    ["http://localhost:8888/user", undefined],
  ]);
});

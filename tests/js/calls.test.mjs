// Calls: answers, drops, timeouts, cancellation (FEATURES T109-T130).
import assert from "node:assert/strict";
import { inspect } from "node:util";
import { test } from "node:test";

import { CallAborted, CallFailed, CallTimeout } from "../../jupyter_agents/static/agent-client.js";
import { captureWarnings, fate, identity, makeClient, openClient, openNext, rejection, settle } from "./fakes.mjs";

const answer = (socket, result, at = socket.frames.length - 1) =>
  socket.receive({ type: "rpc", id: socket.frames[at].id, success: true, result, done: true });

test("a call goes out as an rpc frame with its deadline and resolves with the result", async () => {
  const { client, WebSocket } = await openClient();
  const sum = client.call("add", [1, 2]);
  const [frame] = WebSocket.last.frames;
  assert.deepEqual({ ...frame, id: "" }, { type: "rpc", id: "", method: "add", args: [1, 2], deadline_ms: 30000 });
  answer(WebSocket.last, 3);
  assert.equal(await sum, 3);
});

test("answers are matched by id, whatever their order", async () => {
  const { client, WebSocket } = await openClient();
  const [slow, fast] = [client.call("slow"), client.call("fast")];
  answer(WebSocket.last, "second", 1);
  answer(WebSocket.last, "first", 0);
  assert.deepEqual(await Promise.all([slow, fast]), ["first", "second"]);
});

test("an answer without a result resolves with undefined", async () => {
  const { client, WebSocket } = await openClient();
  const call = client.call("nothing");
  WebSocket.last.receive({ type: "rpc", id: WebSocket.last.frames[0].id, success: true, done: true });
  assert.equal(await call, undefined);
});

test("an error answer rejects with the agent's text and its public data", async () => {
  const { client, WebSocket } = await openClient();
  const call = client.call("fail");
  const { id } = WebSocket.last.frames[0];
  WebSocket.last.receive({ type: "rpc", id, success: false, error: "no tea", data: { left: 0 } });
  const error = await rejection(call);
  assert.ok(error instanceof CallFailed);
  assert.deepEqual([error.message, error.method, error.data], ["no tea", "fail", { left: 0 }]);
});

test("T109 closing on purpose rejects a call in flight at once", async () => {
  const { client } = await openClient();
  const call = client.call("slow");
  client.close();
  const error = await rejection(call);
  assert.ok(error instanceof CallAborted);
  assert.deepEqual([error.message, error.transmitted], ["Connection closed", true]);
});

test("T110 a drop rejects a call that was sent, because its answer can never come", async () => {
  const { client, WebSocket } = await openClient();
  const call = client.call("slow");
  WebSocket.last.drop();
  const error = await rejection(call);
  assert.deepEqual([error.message, error.transmitted], ["Connection closed", true]);
  assert.equal(client.connectionError, null);
});

test("T111 a call made while disconnected survives another drop and succeeds later", async () => {
  const made = await openClient();
  made.WebSocket.last.drop();
  const call = made.client.call("add", [1]);
  await made.clock.advance(3000);
  made.WebSocket.last.drop(); // before it opened
  assert.equal(await fate(call), "pending");
  const socket = await openNext(made, { wait: 4000 });
  answer(socket, 7);
  assert.equal(await call, 7);
});

test("T112 the default timeout rejects naming the method and the time", async () => {
  const { client, clock } = await openClient({ defaultCallTimeout: 300 });
  const call = client.call("never");
  const error = rejection(call);
  await clock.advance(299);
  assert.equal(await fate(call), "pending");
  await clock.advance(1);
  assert.ok((await error) instanceof CallTimeout);
  assert.equal((await error).message, "RPC call to never timed out after 300ms");
});

test("T113 a timeout of 0 disables the default, and no deadline is sent", async () => {
  const { client, clock, WebSocket } = await openClient({ defaultCallTimeout: 300 });
  const call = client.call("slow", [], { timeout: 0 });
  await clock.advance(100000);
  assert.equal(await fate(call), "pending");
  assert.ok(!("deadline_ms" in WebSocket.last.frames[0]));
});

test("T114 a stream outlives the default timeout", async () => {
  const { client, clock, WebSocket } = await openClient({ defaultCallTimeout: 300 });
  const chunks = [];
  const call = client.call("count", [], { stream: { onChunk: (chunk) => chunks.push(chunk) } });
  await clock.advance(1000);
  const { id } = WebSocket.last.frames[0];
  WebSocket.last.receive({ type: "rpc", id, success: true, result: 1, done: false });
  WebSocket.last.receive({ type: "rpc", id, success: true, result: "end", done: true });
  assert.equal(await call, "end");
  assert.deepEqual(chunks, [1]);
});

test("T115 an answer for a call that timed out is a warning and nothing else", async (context) => {
  const warnings = captureWarnings(context);
  const { client, clock, WebSocket } = await openClient();
  const call = rejection(client.call("late", [], { timeout: 10 }));
  await clock.advance(10);
  await call;
  answer(WebSocket.last, 1, 0);
  assert.match(warnings[0], /no matching pending call/);
});

for (const code of [1008, 4000, 4001, 4999]) {
  test(`T116 close code ${code} is final: no reconnect, the error is told once, later calls reject at once`, async () => {
    const errors = [];
    const { client, clock, WebSocket } = await openClient({ onConnectionError: (error) => errors.push(error) });
    const queuedOrSent = client.call("slow");
    WebSocket.last.drop(code, "go away");
    assert.equal((await rejection(queuedOrSent)).message, "Connection closed");
    await clock.advance(100000);
    assert.equal(WebSocket.all.length, 1);
    assert.deepEqual([client.connectionError.code, client.connectionError.reason], [code, "go away"]);
    assert.deepEqual(errors, [client.connectionError]);
    assert.equal((await rejection(client.call("more"))).transmitted, false);
  });
}

test("T117 the user's predicate is combined with the final codes, and the latest one given counts", async () => {
  const made = await openClient({ shouldReconnectOnClose: () => false });
  made.client.updateProperties({ shouldReconnectOnClose: () => true });
  made.WebSocket.last.drop(1011);
  await openNext(made, { wait: 3000 });
  made.client.updateProperties({ shouldReconnectOnClose: (event) => event.code !== 1011 });
  made.WebSocket.last.drop(1011);
  await made.clock.advance(60000);
  assert.equal(made.WebSocket.all.length, 2);
  assert.equal(made.client.connectionError.code, 1011);
});

test("T117 a predicate cannot overrule a final code", async () => {
  const { client, clock, WebSocket } = await openClient({ shouldReconnectOnClose: () => true });
  WebSocket.last.drop(4001);
  await clock.advance(60000);
  assert.equal(WebSocket.all.length, 1);
  assert.equal(client.shouldReconnect, false);
});

test("T118 after a final close the async query is not asked again", async () => {
  let asked = 0;
  const { clock, WebSocket } = await openClient({ query: async () => ({ n: String(++asked) }) });
  WebSocket.last.drop(4001);
  await clock.advance(60000);
  assert.equal(asked, 1);
});

test("T119 another address clears the connection error", async () => {
  const { client, WebSocket } = await openClient();
  WebSocket.last.drop(4001);
  client.updateProperties({ name: "attic" });
  assert.equal(client.connectionError, null);
});

test("T120 calls that wait for the old address are rejected, not sent to the new one", async () => {
  const made = await openClient();
  made.WebSocket.last.drop();
  const call = made.client.call("add");
  made.client.updateProperties({ name: "attic" });
  const error = await rejection(call);
  assert.deepEqual([error.message, error.transmitted], ["The address has changed", false]);
  made.client.reconnect();
  const socket = await openNext(made);
  assert.deepEqual(socket.sent, []);
  assert.match(socket.url, /chat-room\/attic\?/);
});

test("T121 waiting calls are carried over when only credentials change", async () => {
  const made = await openClient({ query: { token: "old" } });
  made.WebSocket.last.drop();
  const call = made.client.call("add");
  made.client.updateProperties({ query: { token: "new" } });
  const socket = await openNext(made, { wait: 3000 });
  assert.match(socket.url, /token=new/);
  answer(socket, 1);
  assert.equal(await call, 1);
});

test("T124 ready is a new wait after a close, and identified is false in between", async () => {
  const made = await openClient();
  const first = made.client.ready;
  assert.equal(await fate(first), "resolved");
  made.WebSocket.last.drop();
  assert.equal(made.client.identified, false);
  assert.notEqual(made.client.ready, first);
  assert.equal(await fate(made.client.ready), "pending");
  await openNext(made, { wait: 3000 });
  assert.equal(await fate(made.client.ready), "resolved");
});

test("ready awaited before a drop is kept by the next connection", async () => {
  const made = makeClient();
  const { ready } = made.client;
  await made.clock.advance(0);
  made.WebSocket.last.drop();
  await openNext(made, { wait: 3000 });
  assert.equal(await fate(ready), "resolved");
});

test("ready rejects when the connection is refused for good", async () => {
  const { client, clock, WebSocket } = makeClient();
  const { ready } = client;
  await clock.advance(0);
  WebSocket.last.drop(4001, "Unauthorized");
  assert.equal(await rejection(ready), client.connectionError);
});

test("T125 the first identity is no change; another one later is", async () => {
  const seen = [];
  const onIdentity = (...args) => seen.push(["identity", ...args]);
  const onIdentityChange = (...args) => seen.push(["change", ...args]);
  const made = await openClient({ onIdentity, onIdentityChange });
  assert.deepEqual(seen, [["identity", "lobby", "chat-room"]]);
  made.WebSocket.last.drop();
  await made.clock.advance(3000);
  made.WebSocket.last.open();
  made.WebSocket.last.receive(identity({ name: "attic" }));
  assert.deepEqual(seen[1], ["change", "lobby", "attic", "chat-room", "chat-room"]);
  assert.deepEqual([made.client.name, made.client.room], ["attic", "attic"]);
});

test("T125 a changed identity without a handler is a warning", async (context) => {
  const warnings = captureWarnings(context);
  const made = await openClient();
  made.WebSocket.last.receive(identity({ agent: "other" }));
  assert.match(warnings[0], /chat-room\/lobby → other\/lobby/);
});

test("T128 looking at the stub sends nothing", async () => {
  const { client, WebSocket } = await openClient();
  const { stub } = client;
  JSON.stringify({ stub });
  inspect(stub);
  await stub;
  void stub[Symbol.toPrimitive];
  void stub.constructor;
  assert.deepEqual(WebSocket.last.sent, []);
  const call = rejection(stub.shout("x"));
  assert.deepEqual(WebSocket.last.frames[0].args, ["x"]);
  client.close();
  await call;
});

test("T130 when the agent says a state follows, ready waits for it", async () => {
  const { client, clock, WebSocket } = makeClient();
  await clock.advance(0);
  WebSocket.last.open();
  WebSocket.last.receive(identity({ stateFollows: true }));
  assert.deepEqual([await fate(client.ready), client.identified], ["pending", false]);
  WebSocket.last.receive({ type: "cf_agent_state", state: null, version: 0 });
  assert.deepEqual([await fate(client.ready), client.identified, client.state], ["resolved", true, null]);
});

test("aborting a sent call cancels it in the agent, and its late answer is no surprise", async (context) => {
  const warnings = captureWarnings(context);
  const { client, WebSocket } = await openClient();
  const controller = new AbortController();
  const call = client.call("slow", [], { signal: controller.signal });
  controller.abort(new Error("enough"));
  assert.equal((await rejection(call)).message, "enough");
  const [request, cancel] = WebSocket.last.frames;
  assert.deepEqual(cancel, { type: "rpc_cancel", id: request.id });
  WebSocket.last.receive({ type: "rpc", id: request.id, success: false, error: "Cancelled" });
  assert.deepEqual(warnings, []);
});

test("aborting a call that waits takes it out of the queue", async () => {
  const made = makeClient();
  const controller = new AbortController();
  const call = rejection(made.client.call("slow", [], { signal: controller.signal }));
  controller.abort();
  assert.equal((await call).name, "AbortError");
  assert.deepEqual((await openNext(made)).sent, []);
});

test("an aborted signal sends nothing at all", async () => {
  const { client, WebSocket } = await openClient();
  await rejection(client.call("slow", [], { signal: AbortSignal.abort() }));
  assert.deepEqual(WebSocket.last.sent, []);
});

test("a call that waited tells the deadline it has left", async () => {
  const made = makeClient();
  const call = rejection(made.client.call("add", [], { timeout: 5000 }));
  const socket = await openNext(made);
  assert.equal(socket.frames[0].deadline_ms, 5000);
  socket.drop();
  await call;
  const second = rejection(made.client.call("add", [], { timeout: 5000 }));
  assert.equal((await openNext(made, { wait: 3000 })).frames[0].deadline_ms, 2000);
  made.client.close();
  await second;
});

test("arguments are what they were when the call was made", async () => {
  const made = makeClient();
  const list = [1];
  void rejection(made.client.call("add", list));
  list.push(2);
  assert.deepEqual((await openNext(made)).frames[0].args, [1]);
  made.client.close();
});

test("a call after close() rejects at once", async () => {
  const { client } = await openClient();
  client.close();
  assert.equal((await rejection(client.call("add"))).transmitted, false);
});

test("a call that finds the queue full rejects and says it was never sent", async () => {
  const { client } = makeClient({ maxEnqueuedMessages: 1 });
  client.send("one");
  const error = await rejection(client.call("add"));
  assert.deepEqual([error.message, error.transmitted], ["The queue is full", false]);
});

test("the older form of options, the stream callbacks themselves, works", async () => {
  const { client, WebSocket } = await openClient();
  const seen = [];
  const call = client.call("count", [], { onChunk: (c) => seen.push(c), onDone: (c) => seen.push(["done", c]) });
  const { id } = WebSocket.last.frames[0];
  WebSocket.last.receive({ type: "rpc", id, success: true, result: 0, done: false });
  WebSocket.last.receive({ type: "rpc", id, success: true, result: 5, done: true });
  assert.equal(await call, 5);
  assert.deepEqual(seen, [0, ["done", 5]]);
});

test("an error in a callback is reported as uncaught and leaves the client whole", async (context) => {
  const { client, WebSocket } = await openClient();
  const reports = [];
  context.mock.method(globalThis, "queueMicrotask", (task) => reports.push(task));
  const onChunk = () => {
    throw new Error("mine");
  };
  const call = client.call("count", [], { onChunk });
  const { id } = WebSocket.last.frames[0];
  WebSocket.last.receive({ type: "rpc", id, success: true, result: 0, done: false });
  WebSocket.last.receive({ type: "rpc", id, success: true, result: 5, done: true });
  assert.throws(reports[0], /mine/);
  assert.equal(await call, 5);
});

test("without the extension neither deadline nor cancel is sent", async () => {
  const { client, WebSocket } = await openClient({ extended: false });
  const controller = new AbortController();
  const call = rejection(client.call("slow", [], { signal: controller.signal }));
  controller.abort();
  await call;
  await settle();
  assert.deepEqual(
    WebSocket.last.frames.map((frame) => Object.keys(frame)),
    [["type", "id", "method", "args"]],
  );
  assert.doesNotMatch(WebSocket.last.url, /_ja/);
});

test("an answered call leaves neither a timer nor a listener behind", async (context) => {
  const { client, clock, WebSocket } = await openClient({ minUptime: 1 });
  await clock.advance(1);
  const { signal } = new AbortController();
  const removed = context.mock.method(signal, "removeEventListener");
  const call = client.call("add", [], { signal });
  assert.deepEqual(clock.waits, [30000]);
  answer(WebSocket.last, 1);
  await call;
  assert.deepEqual([clock.waits, removed.mock.callCount()], [[], 1]);
});

test("a call whose time ran out while it waited is not sent later", async () => {
  const made = await openClient();
  made.WebSocket.last.drop();
  const call = rejection(made.client.call("add", [], { timeout: 1000 }));
  await made.clock.advance(1000);
  assert.ok((await call) instanceof CallTimeout);
  assert.deepEqual((await openNext(made, { wait: 2000 })).sent, []);
});

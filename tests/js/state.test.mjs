// The replica of the state: every copy ends equal to the agent's (FEATURES T122, T202-T204).
import assert from "node:assert/strict";
import { test } from "node:test";

import { ConnectionReadonly, StateError, StateRejected } from "../../jupyter_agents/static/agent-client.js";
import { fate, identity, makeClient, openClient, openNext, rejection, settle } from "./fakes.mjs";

const writes = (socket) => socket.frames.filter(({ type }) => type === "cf_agent_state");
const ack = (socket, fields, at = 0) =>
  socket.receive({ type: "cf_agent_state_ack", write: writes(socket)[at].write, ...fields });
const refuse = (socket, fields, at = 0) =>
  socket.receive({ type: "cf_agent_state_error", write: writes(socket)[at].write, ...fields });

/** A connected client that remembers what it was told. */
async function openRecorded(options = {}) {
  const seen = [];
  const onStateUpdate = (state, source) => seen.push([state, source]);
  const onStateUpdateError = (error) => seen.push(["error", error]);
  const made = await openClient({ state: { n: 0 }, version: 1, onStateUpdate, onStateUpdateError, ...options });
  seen.length = 0;
  return { ...made, socket: made.WebSocket.last, seen };
}

test("T122 state is undefined at first, then what was set, then what the agent broadcasts", async () => {
  const made = makeClient();
  assert.equal(made.client.state, undefined);
  const socket = await openNext(made);
  const write = made.client.setState({ n: 1 });
  assert.deepEqual(made.client.state, { n: 1 });
  ack(socket, { version: 1 });
  await write;
  socket.receive({ type: "cf_agent_state", state: { n: 2 }, version: 2 });
  assert.deepEqual(made.client.state, { n: 2 });
});

test("falsy states are states", async () => {
  const { client, socket } = await openRecorded();
  for (const [version, state] of [
    [2, 0],
    [3, false],
    [4, ""],
    [5, null],
  ]) {
    socket.receive({ type: "cf_agent_state", state, version });
    assert.equal(client.state, state);
  }
});

test("an online write has an id and no base, shows at once and resolves when acknowledged", async () => {
  const { client, socket, seen } = await openRecorded();
  const write = client.setState({ n: 1 });
  const [frame] = socket.frames;
  assert.deepEqual(frame, { type: "cf_agent_state", state: { n: 1 }, write: frame.write });
  assert.deepEqual([await fate(write), client.state, client.stateVersion], ["pending", { n: 1 }, 1]);
  ack(socket, { version: 2 });
  assert.deepEqual([await fate(write), client.state, client.stateVersion], ["resolved", { n: 1 }, 2]);
  assert.deepEqual(seen, [[{ n: 1 }, "client"]]);
});

test("an acknowledgement may carry what the agent made of the value", async () => {
  const { client, socket, seen } = await openRecorded();
  const write = client.setState({ n: 99 });
  ack(socket, { version: 2, state: { n: 10 } });
  await write;
  assert.deepEqual(client.state, { n: 10 });
  assert.deepEqual(seen, [
    [{ n: 99 }, "client"],
    [{ n: 10 }, "server"],
  ]);
});

test("T204 a refused write rolls back and rejects with the reason", async () => {
  const { client, socket, seen } = await openRecorded();
  const write = client.setState({ n: -1 });
  refuse(socket, { error: "n must not be negative", state: { n: 0 }, version: 1 });
  const error = await rejection(write);
  assert.ok(error instanceof StateRejected);
  assert.deepEqual([error.reason, error.state, client.state], ["n must not be negative", { n: 0 }, { n: 0 }]);
  assert.deepEqual(seen, [
    [{ n: -1 }, "client"],
    ["error", "n must not be negative"],
    [{ n: 0 }, "server"],
  ]);
});

test("a readonly connection is told so by an error of its own", async () => {
  const { client, socket } = await openRecorded();
  const write = client.setState({ n: 1 });
  refuse(socket, { error: "Connection is readonly", state: { n: 0 }, version: 1 });
  assert.ok((await rejection(write)) instanceof ConnectionReadonly);
});

test("a refused write that nobody awaited brings nothing down", async () => {
  const { client, socket } = await openRecorded();
  void client.setState({ n: -1 });
  refuse(socket, { error: "no", state: { n: 0 }, version: 1 });
  await settle();
  assert.deepEqual(client.state, { n: 0 });
});

test("while a write is on its way, other news do not flicker through", async () => {
  const { client, socket, seen } = await openRecorded();
  const write = client.setState({ n: 1 });
  socket.receive({ type: "cf_agent_state", state: { n: 50 }, version: 2 });
  assert.deepEqual(client.state, { n: 1 });
  ack(socket, { version: 3 });
  await write;
  assert.deepEqual([client.state, seen], [{ n: 1 }, [[{ n: 1 }, "client"]]]);
});

test("a refused write falls back to the newest value the agent confirmed", async () => {
  const { client, socket } = await openRecorded();
  const write = client.setState({ n: 1 });
  socket.receive({ type: "cf_agent_state", state: { n: 50 }, version: 7 });
  refuse(socket, { error: "no", state: { n: 50 }, version: 7 });
  await rejection(write);
  assert.deepEqual([client.state, client.stateVersion], [{ n: 50 }, 7]);
});

test("a refused first write leaves the second shown", async () => {
  const { client, socket, seen } = await openRecorded();
  const [first, second] = [client.setState({ n: -1 }), client.setState({ n: 2 })];
  refuse(socket, { error: "no", state: { n: 0 }, version: 1 }, 0);
  await rejection(first);
  assert.deepEqual(client.state, { n: 2 });
  ack(socket, { version: 2 }, 1);
  await second;
  assert.deepEqual(seen, [
    [{ n: -1 }, "client"],
    [{ n: 2 }, "client"],
    ["error", "no"],
  ]);
});

test("the agent's own change that overtakes the acknowledgement stays", async () => {
  const { client, socket } = await openRecorded();
  const write = client.setState({ n: 1 });
  socket.receive({ type: "cf_agent_state", state: { n: 1, seen: true }, version: 3 });
  ack(socket, { version: 2 });
  await write;
  assert.deepEqual([client.state, client.stateVersion], [{ n: 1, seen: true }, 3]);
});

test("a whole state counts whatever its version, for frames come in the agent's order", async () => {
  const { client, socket, seen } = await openRecorded();
  socket.receive({ type: "cf_agent_state", state: { n: 5 }, version: 5 });
  socket.receive({ type: "cf_agent_state", state: { n: 4 }, version: 0 });
  assert.deepEqual([client.state, client.stateVersion, seen.length], [{ n: 4 }, 0, 2]);
});

test("a new connection may start from a lower version", async () => {
  const made = await openRecorded();
  made.socket.receive({ type: "cf_agent_state", state: { n: 5 }, version: 50 });
  made.socket.drop();
  await openNext(made, { state: { n: 0 }, version: 1, wait: 3000 });
  assert.deepEqual([made.client.state, made.client.stateVersion], [{ n: 0 }, 1]);
});

test("a new connection to an agent that has no state any more forgets the old one", async () => {
  const made = await openRecorded();
  made.socket.drop();
  await openNext(made, { wait: 3000 });
  assert.deepEqual([made.client.state, made.seen], [undefined, [[undefined, "server"]]]);
});

test("a patch that fits is applied", async () => {
  const { client, socket, seen } = await openRecorded();
  const ops = [{ op: "replace", path: "/n", value: 9 }];
  socket.receive({ type: "cf_agent_state_patch", ops, base: 1, version: 2 });
  assert.deepEqual([client.state, client.stateVersion, seen], [{ n: 9 }, 2, [[{ n: 9 }, "server"]]]);
});

test("patches after an acknowledged write build on it", async () => {
  const { client, socket } = await openRecorded();
  const write = client.setState({ n: 1, list: [] });
  ack(socket, { version: 2 });
  await write;
  const ops = [{ op: "add", path: "/list/-", value: "x" }];
  socket.receive({ type: "cf_agent_state_patch", ops, base: 2, version: 3 });
  assert.deepEqual(client.state, { n: 1, list: ["x"] });
});

for (const [what, frame] of [
  ["has another base", { ops: [{ op: "replace", path: "/n", value: 9 }], base: 4, version: 5 }],
  ["does not apply", { ops: [{ op: "remove", path: "/gone" }], base: 1, version: 2 }],
]) {
  test(`a patch that ${what} makes the client ask for the whole state, once`, async () => {
    const { client, socket } = await openRecorded();
    socket.receive({ type: "cf_agent_state_patch", ...frame });
    socket.receive({ type: "cf_agent_state_patch", ...frame });
    assert.deepEqual(socket.frames, [{ type: "cf_agent_state_get" }]);
    assert.deepEqual(client.state, { n: 0 });
    socket.receive({ type: "cf_agent_state", state: { n: 7 }, version: 5 });
    assert.deepEqual(client.state, { n: 7 });
    socket.receive({ type: "cf_agent_state_patch", ops: [], base: 99, version: 100 });
    assert.equal(socket.frames.length, 2);
  });
}

test("T203 a write made offline goes out with the version it was made upon", async () => {
  const made = await openRecorded();
  made.socket.drop();
  const write = made.client.setState({ n: 5 });
  assert.deepEqual(made.client.state, { n: 5 });
  const socket = await openNext(made, { state: { n: 0 }, version: 1, wait: 3000 });
  assert.deepEqual(
    writes(socket).map(({ state, base }) => [state, base]),
    [[{ n: 5 }, 1]],
  );
  ack(socket, { version: 2 });
  await write;
});

test("T203 an offline write that came too late is refused, and the writer ends with the agent's state", async () => {
  const made = await openRecorded();
  made.socket.drop();
  const write = made.client.setState({ n: 5 });
  const socket = await openNext(made, { state: { n: 8 }, version: 4, wait: 3000 });
  assert.deepEqual(made.client.state, { n: 5 });
  refuse(socket, { error: "The state has changed", state: { n: 8 }, version: 4 });
  assert.equal((await rejection(write)).reason, "The state has changed");
  assert.deepEqual(made.client.state, { n: 8 });
});

test("of several offline writes the last goes out, and answers for all", async () => {
  const made = await openRecorded();
  made.socket.drop();
  const all = [1, 2, 3].map((n) => made.client.setState({ n }));
  const socket = await openNext(made, { state: { n: 0 }, version: 1, wait: 3000 });
  assert.deepEqual(
    writes(socket).map(({ state }) => state),
    [{ n: 3 }],
  );
  ack(socket, { version: 2 });
  await Promise.all(all);
});

test("offline writes keep their place among messages: the last write's", async () => {
  const made = await openRecorded();
  made.socket.drop();
  void made.client.setState({ n: 1 });
  made.client.send("{}");
  void made.client.setState({ n: 2 });
  const socket = await openNext(made, { wait: 3000 });
  assert.deepEqual(
    socket.frames.map(({ state }) => state),
    [undefined, { n: 2 }],
  );
});

test("a write before the first connection has no base, for there is none", async () => {
  const made = makeClient();
  void made.client.setState({ n: 1 });
  const socket = await openNext(made);
  assert.ok(!("base" in writes(socket)[0]));
});

test("a write lost with its connection goes out again, before what was said later", async () => {
  const made = await openRecorded();
  const write = made.client.setState({ n: 5 });
  made.socket.drop();
  made.client.send("{}");
  assert.equal(await fate(write), "pending");
  const socket = await openNext(made, { state: { n: 0 }, version: 1, wait: 3000 });
  assert.deepEqual(
    socket.frames.map(({ state, base }) => [state, base]),
    [
      [{ n: 5 }, 1],
      [undefined, undefined],
    ],
  );
  ack(socket, { version: 2 });
  await write;
});

test("a write that had been applied before the connection broke resolves, though its repetition is refused", async () => {
  const made = await openRecorded();
  const write = made.client.setState({ n: 5 });
  made.socket.drop();
  const socket = await openNext(made, { state: { n: 5 }, version: 2, wait: 3000 });
  refuse(socket, { error: "The state has changed", state: { n: 5 }, version: 2 });
  await write;
  assert.deepEqual(
    made.seen.filter(([first]) => first === "error"),
    [],
  );
});

test("writes that were not answered when the kernel went away are offered again when it is back", async () => {
  const { client, socket } = await openRecorded();
  const all = [1, 2].map((n) => client.setState({ n }));
  socket.receive({ type: "cf_agent_suspended" });
  assert.equal(writes(socket).length, 2);
  socket.receive({ type: "cf_agent_resumed" });
  assert.deepEqual(
    writes(socket)
      .slice(2)
      .map(({ state, base }) => [state, base]),
    [[{ n: 2 }, 1]],
  );
  assert.deepEqual(client.state, { n: 2 });
  ack(socket, { version: 2 }, 2);
  await Promise.all(all);
  socket.receive({ type: "cf_agent_resumed" });
  assert.equal(writes(socket).length, 3);
});

test("a write nobody acknowledges rejects after the default timeout and asks for the truth", async () => {
  const { client, socket, clock } = await openRecorded({ defaultCallTimeout: 500 });
  const write = rejection(client.setState({ n: 5 }));
  await clock.advance(500);
  assert.match((await write).message, /not acknowledged within 500ms/);
  assert.deepEqual(client.state, { n: 0 });
  assert.deepEqual(socket.frames[1], { type: "cf_agent_state_get" });
  ack(socket, { version: 2 }); // too late, and no harm
  assert.deepEqual(client.state, { n: 0 });
});

for (const [what, end] of [
  ["close()", ({ client }) => client.close()],
  ["a final close", ({ socket }) => socket.drop(4001)],
]) {
  test(`${what} rejects the writes on their way and rolls back`, async () => {
    const made = await openRecorded();
    const write = rejection(made.client.setState({ n: 5 }));
    end(made);
    assert.ok((await write) instanceof StateError);
    assert.deepEqual(made.client.state, { n: 0 });
    assert.ok((await rejection(made.client.setState({ n: 6 }))) instanceof StateError);
    assert.deepEqual(made.client.state, { n: 0 });
  });
}

test("a write that finds the queue full rejects and does not show", async () => {
  const { client } = makeClient({ maxEnqueuedMessages: 1 });
  client.send("one");
  assert.equal((await rejection(client.setState(1))).message, "The queue is full");
  assert.equal(client.state, undefined);
});

test("the replica holds what JSON carries, not what the caller changes later", async () => {
  const { client } = await openRecorded();
  const mine = { at: new Date(0) };
  void client.setState(mine);
  mine.more = true;
  assert.deepEqual(client.state, { at: "1970-01-01T00:00:00.000Z" });
});

test("what JSON cannot carry is refused at once", async () => {
  const { client, socket } = await openRecorded();
  assert.ok((await rejection(client.setState(undefined))) instanceof TypeError);
  assert.deepEqual([socket.sent, client.state], [[], { n: 0 }]);
});

test("moving to another address forgets state and writes", async () => {
  const made = await openRecorded();
  made.socket.drop();
  const write = rejection(made.client.setState({ n: 5 }));
  made.client.updateProperties({ name: "attic" });
  assert.equal((await write).message, "The address has changed");
  made.client.reconnect();
  await made.clock.advance(0);
  made.WebSocket.last.open();
  assert.deepEqual([made.client.state, made.WebSocket.last.sent], [undefined, []]);
});

test("an SDK server is recognised by its frames, and a write resolves when it was sent", async () => {
  const made = makeClient();
  await made.clock.advance(0);
  const socket = made.WebSocket.last;
  socket.open();
  socket.receive(identity({ stateFollows: true }));
  const early = made.client.setState({ n: 1 });
  assert.equal(await fate(early), "pending");
  socket.receive({ type: "cf_agent_state", state: { n: 0 } });
  assert.equal(await fate(early), "resolved");
  await made.client.setState({ n: 2 });
  assert.deepEqual(writes(socket)[1], { type: "cf_agent_state", state: { n: 2 } });
});

test("an SDK server without a state is recognised by its list of MCP servers", async () => {
  const made = makeClient();
  const socket = await openNext(made);
  const write = made.client.setState({ n: 1 });
  socket.receive({ type: "cf_agent_mcp_servers", mcp: {} });
  assert.equal(await fate(write), "resolved");
  assert.deepEqual(made.client.state, { n: 1 });
});

test("extended: false speaks the SDK's wire and resolves a write when it was sent", async () => {
  const errors = [];
  const made = await openClient({ extended: false, onStateUpdateError: (error) => errors.push(error) });
  await made.client.setState({ n: 1 });
  assert.deepEqual(made.WebSocket.last.frames, [{ type: "cf_agent_state", state: { n: 1 } }]);
  made.WebSocket.last.receive({ type: "cf_agent_state_error", error: "State update rejected" });
  assert.deepEqual(errors, ["State update rejected"]);
});

// Streams: chunks as they come, iteration, numbering, leaving early.
import assert from "node:assert/strict";
import { test } from "node:test";

import { CallAborted, CallFailed } from "../../jupyter_agents/static/agent-client.js";
import { fate, openClient, rejection, settle } from "./fakes.mjs";

/** A running stream and the agent's hand in it. */
async function startStream(options) {
  const { client, WebSocket, clock } = await openClient();
  const stream = client.stream("count", [3], options);
  const socket = WebSocket.last;
  const { id } = socket.frames[0];
  const reply = (fields) => socket.receive({ type: "rpc", id, success: true, ...fields });
  const chunk = (result, seq) => reply({ result, done: false, ...(seq === undefined ? {} : { seq }) });
  return { client, stream, socket, clock, chunk, end: (result) => reply({ result, done: true }), reply, id };
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

test("for await gives the chunks in order and ends; the final value is result", async () => {
  const { stream, chunk, end } = await startStream();
  const all = collect(stream);
  for (const n of [0, 1, 2]) chunk(n, n);
  end("done");
  assert.deepEqual(await all, [0, 1, 2]);
  assert.equal(await stream.result, "done");
});

test("chunks that came before anybody read are kept", async () => {
  const { stream, chunk, end } = await startStream();
  chunk("a");
  chunk("b");
  end();
  await settle();
  assert.deepEqual(await collect(stream), ["a", "b"]);
});

test("an error of the agent is thrown after the chunks before it, once", async () => {
  const { stream, chunk, reply } = await startStream();
  chunk("a");
  reply({ success: false, error: "burnt" });
  await settle();
  assert.deepEqual(await stream.next(), { value: "a", done: false });
  const error = await rejection(stream.next());
  assert.ok(error instanceof CallFailed);
  assert.equal(error.message, "burnt");
  assert.deepEqual(await stream.next(), { value: undefined, done: true });
});

test("leaving the loop cancels the call in the agent", async () => {
  const { stream, chunk, socket, id } = await startStream();
  chunk(0);
  for await (const _ of stream) break;
  assert.deepEqual(socket.frames[1], { type: "rpc_cancel", id });
  assert.deepEqual(await stream.next(), { value: undefined, done: true });
});

test("cancel() ends the iteration with the reason", async () => {
  const { stream } = await startStream();
  const next = rejection(stream.next());
  stream.cancel(new Error("enough"));
  assert.equal((await next).message, "enough");
});

test("a signal of the caller cancels as well", async () => {
  const controller = new AbortController();
  const { stream, socket } = await startStream({ signal: controller.signal });
  const next = rejection(stream.next());
  controller.abort();
  assert.equal((await next).name, "AbortError");
  assert.equal(socket.frames[1].type, "rpc_cancel");
});

test("a drop ends the stream, for its chunks are lost", async () => {
  const { stream, socket } = await startStream();
  const next = rejection(stream.next());
  socket.drop();
  assert.ok((await next) instanceof CallAborted);
});

test("a chunk that came twice is given once", async () => {
  const { stream, chunk, end } = await startStream();
  for (const n of [0, 1, 1, 0, 2]) chunk(n, n);
  end();
  assert.deepEqual(await collect(stream), [0, 1, 2]);
});

test("a missing chunk fails the stream rather than passing unnoticed", async () => {
  const { stream, chunk } = await startStream();
  const all = rejection(collect(stream));
  chunk("a", 0);
  chunk("b", 2);
  assert.equal((await all).message, "Chunk 1 is missing");
});

test("a reader that never comes cannot fill the memory", async () => {
  const { stream, chunk, socket } = await startStream();
  for (let n = 0; n <= 10000; n++) chunk(n, n);
  assert.match((await rejection(stream.result)).message, /10000 chunks wait/);
  assert.equal(socket.frames[1].type, "rpc_cancel");
});

test("a timeout given to a stream holds, and is its deadline", async () => {
  const { stream, socket, clock } = await startStream({ timeout: 100 });
  assert.equal(socket.frames[0].deadline_ms, 100);
  const next = rejection(stream.next());
  await clock.advance(100);
  assert.match((await next).message, /timed out after 100ms/);
});

test("a stream that nobody looks at fails silently", async () => {
  const { stream, reply } = await startStream();
  reply({ success: false, error: "burnt" });
  assert.equal(await fate(stream.result), "rejected");
});

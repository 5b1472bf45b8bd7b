// What the notebook's live views think, without a page: words, differences, packed values, the line to the kernel.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Link, unpacked } from "../../jupyter_agents/widgets/static/link.js";
import { differences } from "../../jupyter_agents/widgets/static/state-view.js";
import { agoText, countText, rateText, shortId, whoText } from "../../jupyter_agents/widgets/static/words.js";

test("a person is named with the start of a made-up id; a name that Jupyter invented says nothing", () => {
  assert.equal(whoText({ id: "0123456789abcdef0123", n: 1, user: "Ann" }), "Ann · 012345");
  assert.equal(whoText({ id: "me", n: 1, user: "Anonymous Carme" }), "me");
  assert.equal(whoText(null), "");
  assert.equal(shortId("a-name-that-a-person-chose"), "a-name");
  assert.equal(shortId("phone"), "phone");
});

test("times, counts and rates are written for people", () => {
  const ago = (seconds) => agoText(1000, (1000 + seconds) * 1000);
  assert.deepEqual([0, 59, 60, 3660, 200_000].map(ago), ["0 s", "59 s", "1 min", "1 h 1 min", "2 d"]);
  assert.deepEqual([countText(1, "change"), countText(1200, "change")], ["1 change", "1,200 changes"]);
  assert.deepEqual([0, 0.5, 3, 12.4].map(rateText), ["0", "0.5", "3", "12"]);
});

for (const [what, before, after, wanted] of [
  ["equal values", { a: [1] }, { a: [1] }, []],
  ["a leaf", { a: { b: 1 } }, { a: { b: 2 } }, [{ path: "a › b", before: 1, after: 2 }]],
  ["a new key", {}, { a: 1 }, [{ path: "a", before: undefined, after: 1 }]],
  ["an item less", [1, 2], [1], [{ path: "1", before: 2, after: undefined }]],
  ["another kind", { a: [] }, { a: {} }, [{ path: "a", before: [], after: {} }]],
  ["all of it", 1, null, [{ path: "all of it", before: 1, after: null }]],
]) {
  test(`differences: ${what}`, () => assert.deepEqual(differences(before, after), wanted));
}

test("values beside the JSON are put where they belong, whether they came in it or not", () => {
  const bytes = (text) => new DataView(new TextEncoder().encode(text).buffer);
  const facts = { state: { past: [{ value: { buffer: 1 } }, { size: 9 }], now: { value: { buffer: 0 } } } };
  assert.deepEqual(unpacked(facts, [bytes("[1]"), bytes('"a"')]).state, {
    past: [{ value: "a" }, { size: 9 }],
    now: { value: [1] },
  });
  assert.equal(unpacked({ state: { now: { value: { json: null } } } }, []).state.now.value, null);
  assert.deepEqual(unpacked({ about: {} }, []), { about: {} });
});

/** A model and a page that are not there. */
function fakes() {
  const listeners = {};
  const sent = [];
  globalThis.document = { hidden: false, addEventListener() {} };
  const model = {
    send: (content, _callbacks, buffers) => sent.push({ ...content, buffers }),
    on: (event, callback) => (listeners[event] = callback),
    off: (event) => delete listeners[event],
  };
  const seen = [];
  const link = new Link(model, {
    onFacts: (facts, isWhole) => seen.push([facts.kind, isWhole]),
    onPresence: (isHere) => seen.push(isHere),
  });
  const say = (content) => listeners["msg:custom"](content, []);
  return { link, listeners, say, seen, sent };
}

test("a view says hello, hears batches only after its snapshot, and none that is for another", () => {
  const { link, say, seen, sent } = fakes();
  const { view } = sent[0];
  assert.equal(sent[0].do, "hello");
  say({ kind: "batch" });
  say({ kind: "snapshot", to: "another" });
  say({ kind: "snapshot", to: view });
  say({ kind: "batch" });
  assert.deepEqual(seen, [
    ["snapshot", true],
    ["batch", false],
  ]);
  link.end();
  assert.equal(sent.at(-1).do, "bye");
});

test("a question is answered, refused, or fails when the kernel goes", async () => {
  const { link, listeners, say, seen, sent } = fakes();
  const { view } = sent[0];
  const asked = [link.ask("edit"), link.ask("edit"), link.ask("edit")];
  const numbers = sent.slice(1).map(({ ask }) => ask);
  say({ kind: "answer", to: view, ask: numbers[1], error: "No" });
  say({ kind: "answer", to: view, ask: numbers[0], value: 7 });
  assert.equal(await asked[0], 7);
  await assert.rejects(asked[1], /^Error: No$/);
  listeners["comm:close"]();
  await assert.rejects(asked[2], /went away/);
  await assert.rejects(link.ask("edit"), /does not answer/);
  say({ kind: "beat" });
  assert.deepEqual(seen, [false, true]);
  link.end();
});

test("chunks reach the question they belong to, and an abort cancels it", () => {
  const { link, say, sent } = fakes();
  const { view } = sent[0];
  say({ kind: "snapshot", to: view });
  const chunks = [];
  const controller = new AbortController();
  link.ask("call", {}, { onChunk: (chunk) => chunks.push(chunk), signal: controller.signal }).catch(() => {});
  const { ask } = sent.at(-1);
  say({ kind: "batch", calls: { chunks: [[view, ask, [1, 2]], ["another", ask, [3]]] } });
  assert.deepEqual(chunks, [1, 2]);
  controller.abort();
  assert.deepEqual([sent.at(-1).what, sent.at(-1).given], ["cancel", { ask }]);
  link.end();
});

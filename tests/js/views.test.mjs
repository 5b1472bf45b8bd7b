// What the views think, without a page: values, edits, arguments, dumps.
import assert from "node:assert/strict";
import { test } from "node:test";

import { readArguments } from "../../jupyter_agents/static/call-form.js";
import { bytesText, durationText, jsonText, looseValue, shortened } from "../../jupyter_agents/static/dom.js";
import { hexDump, messageKind } from "../../jupyter_agents/static/message-log.js";
import { editedValue, kindOf, withoutValueAt, withValueAt } from "../../jupyter_agents/static/state-tree.js";

test("an edit makes a new value and leaves the old one as it was", () => {
  const before = { a: [1, { b: 2 }], c: {} };
  const after = withValueAt(before, ["a", 1, "b"], 3);
  assert.deepEqual(after, { a: [1, { b: 3 }], c: {} });
  assert.deepEqual(before, { a: [1, { b: 2 }], c: {} });
  assert.equal(after.c, before.c);
  assert.deepEqual(withValueAt(before, [], 7), 7);
});

test("a key named __proto__ is a key like any other", () => {
  const made = withValueAt({}, ["__proto__"], 1);
  assert.deepEqual(Object.keys(made), ["__proto__"]);
  assert.deepEqual(withoutValueAt(made, ["__proto__"]), {});
});

test("removing takes out of objects and lists alike", () => {
  assert.deepEqual(withoutValueAt({ a: [1, 2, 3], b: 1 }, ["a", 1]), { a: [1, 3], b: 1 });
  assert.deepEqual(withoutValueAt({ a: { x: 1, y: 2 } }, ["a", "x"]), { a: { y: 2 } });
});

test("a text stays a text however it reads; other values are JSON or an error", () => {
  assert.equal(editedValue("12", "seven"), "12");
  assert.equal(editedValue("12", 7), 12);
  assert.deepEqual(editedValue("[1]", null), [1]);
  assert.throws(() => editedValue("twelve", 7), SyntaxError);
});

for (const [value, kind] of [
  [null, "null"],
  [[], "array"],
  [{}, "object"],
  ["", "string"],
  [0, "number"],
  [false, "boolean"],
]) {
  test(`${JSON.stringify(value)} is shown as ${kind}`, () => assert.equal(kindOf(value), kind));
}

for (const [data, kind] of [
  ["hello", "text"],
  ["", "text"],
  ["12", "text"],
  ['"quoted"', "text"],
  ["{broken", "text"],
  ['{"a":1}', "json"],
  [" [1]", "json"],
  [new ArrayBuffer(2), "binary"],
]) {
  test(`the message ${typeof data === "string" ? JSON.stringify(data) : "of bytes"} is ${kind}`, () =>
    assert.equal(messageKind(data).kind, kind));
}

test("a hex dump shows offsets, bytes and what can be printed, and says what it leaves out", () => {
  const bytes = Uint8Array.from({ length: 20 }, (_, index) => index + 60).buffer;
  const [first, second] = hexDump(bytes).split("\n");
  assert.equal(first, "0000  3c 3d 3e 3f 40 41 42 43 44 45 46 47 48 49 4a 4b  <=>?@ABCDEFGHIJK");
  assert.equal(second, `0010  4c 4d 4e 4f${" ".repeat(36)}  LMNO`);
  assert.match(hexDump(bytes, 16), /… 4 bytes more$/);
});

/** Fields as the form has them; null is an empty one. */
const fields = (...values) => values.map((value) => ({ read: () => value, isEmpty: () => value === null }));
const required = { required: true };
const optional = { required: false, default: 5 };

for (const [what, parameters, values, wanted] of [
  ["all filled", [required, optional], ["a", 1], ["a", 1]],
  ["an empty end is left out", [required, optional, optional], ["a", null, null], ["a"]],
  ["an empty middle is its default", [required, optional, optional], ["a", null, 2], ["a", 5, 2]],
  ["a required one that is empty is null", [required], [null], [null]],
  ["any number of values run on", [required, { variadic: true }], ["a", [1, 2]], ["a", 1, 2]],
  ["none of any number", [required, { variadic: true }], ["a", null], ["a"]],
  ["no parameters", [], [], []],
]) {
  test(`arguments: ${what}`, () => assert.deepEqual(readArguments(parameters, fields(...values)), wanted));
}

test("sizes, times and long texts are written for people", () => {
  assert.deepEqual([0, 1, 1023, 1024, 3 << 20].map(bytesText), [
    "0 bytes",
    "1 byte",
    "1023 bytes",
    "1.0 KiB",
    "3.0 MiB",
  ]);
  assert.deepEqual([durationText(12.4), durationText(1500)], ["12 ms", "1.5 s"]);
  assert.deepEqual([shortened("abc", 3), shortened("abcd", 3)], ["abc", "ab…"]);
  assert.equal(jsonText([1, 2]), "[1,2]");
  assert.match(jsonText({ text: "x".repeat(80) }), /^{\n {2}"text"/);
  assert.deepEqual([looseValue("[1]"), looseValue("tea"), looseValue("12")], [[1], "tea", 12]);
});

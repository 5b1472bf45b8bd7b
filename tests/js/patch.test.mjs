// RFC 6902, the examples of its appendix A first.
import assert from "node:assert/strict";
import { test } from "node:test";

import { applyPatch, jsonEqual } from "../../jupyter_agents/static/agent-client.js";

const good = [
  ["A.1 add a member", { foo: "bar" }, [{ op: "add", path: "/baz", value: "qux" }], { foo: "bar", baz: "qux" }],
  ["A.2 add to a list", { foo: ["a", "b"] }, [{ op: "add", path: "/foo/1", value: "x" }], { foo: ["a", "x", "b"] }],
  ["A.3 remove a member", { baz: 1, foo: 2 }, [{ op: "remove", path: "/baz" }], { foo: 2 }],
  ["A.4 remove from a list", { foo: ["a", "b", "c"] }, [{ op: "remove", path: "/foo/1" }], { foo: ["a", "c"] }],
  ["A.5 replace", { baz: 1, foo: 2 }, [{ op: "replace", path: "/baz", value: 9 }], { baz: 9, foo: 2 }],
  [
    "A.6 move",
    { a: { x: 1, y: 2 }, b: {} },
    [{ op: "move", from: "/a/x", path: "/b/z" }],
    { a: { y: 2 }, b: { z: 1 } },
  ],
  ["A.7 move in a list", { l: [0, 1, 2, 3] }, [{ op: "move", from: "/l/1", path: "/l/3" }], { l: [0, 2, 3, 1] }],
  ["A.8 test", { b: "q", f: ["a", 2] }, [{ op: "test", path: "/f/1", value: 2 }], { b: "q", f: ["a", 2] }],
  ["A.10 add a nested object", { a: 1 }, [{ op: "add", path: "/c", value: { d: {} } }], { a: 1, c: { d: {} } }],
  ["A.14 escapes", { "/": 9, "~1": 10 }, [{ op: "test", path: "/~01", value: 10 }], { "/": 9, "~1": 10 }],
  ["A.16 add a list to a list", { f: ["b"] }, [{ op: "add", path: "/f/-", value: ["a"] }], { f: ["b", ["a"]] }],
  ["the whole document", { a: 1 }, [{ op: "replace", path: "", value: null }], null],
  ["adding the whole document", undefined, [{ op: "add", path: "", value: [1] }], [1]],
  ["copy", { a: [1] }, [{ op: "copy", from: "/a", path: "/b" }], { a: [1], b: [1] }],
  ["append by index", [1], [{ op: "add", path: "/1", value: 2 }], [1, 2]],
  ["an empty key", { "": 1 }, [{ op: "replace", path: "/", value: 2 }], { "": 2 }],
  ["move onto itself", { a: 1 }, [{ op: "move", from: "/a", path: "/a" }], { a: 1 }],
  [
    "one after the other",
    [],
    [
      { op: "add", path: "/-", value: 1 },
      { op: "replace", path: "/0", value: 2 },
    ],
    [2],
  ],
];
for (const [what, document, operations, wanted] of good) {
  test(`patch: ${what}`, () => {
    const before = structuredClone(document);
    assert.deepEqual(applyPatch(document, operations), wanted);
    assert.deepEqual(document, before, "the document given is left as it was");
  });
}

const bad = [
  ["A.9 a failing test", { b: "q" }, [{ op: "test", path: "/b", value: "x" }]],
  ["A.12 a parent that is not there", { foo: 1 }, [{ op: "add", path: "/baz/bat", value: 1 }]],
  ["an index beyond the end", [1], [{ op: "add", path: "/3", value: 1 }]],
  ["a leading zero", [1, 2], [{ op: "replace", path: "/01", value: 1 }]],
  ["a sign", [1, 2], [{ op: "remove", path: "/-1" }]],
  ["- where a value must be", [1], [{ op: "remove", path: "/-" }]],
  ["a missing member", {}, [{ op: "remove", path: "/a" }]],
  ["an inherited member", {}, [{ op: "copy", from: "/toString", path: "/a" }]],
  ["a member of a text", { a: "text" }, [{ op: "replace", path: "/a/length", value: 1 }]],
  ["a pointer without a slash", {}, [{ op: "add", path: "a", value: 1 }]],
  ["a missing from", {}, [{ op: "move", path: "/a" }]],
  ["an unknown operation", {}, [{ op: "merge", path: "" }]],
  ["moving into itself", { a: { b: 1 } }, [{ op: "move", from: "/a", path: "/a/b" }]],
  ["removing everything", { a: 1 }, [{ op: "remove", path: "" }]],
];
for (const [what, document, operations] of bad) {
  test(`patch refuses ${what}`, () => assert.throws(() => applyPatch(document, operations), /patch:/));
}

test("a patch cannot reach the prototype", () => {
  const made = applyPatch({}, [{ op: "add", path: "/__proto__", value: { polluted: true } }]);
  assert.deepEqual(Object.keys(made), ["__proto__"]);
  assert.equal({}.polluted, undefined);
  assert.equal(made.polluted, undefined);
  assert.throws(() => applyPatch({}, [{ op: "add", path: "/__proto__/x", value: 1 }]), /patch:/);
});

test("what a patch does not touch is shared, not copied", () => {
  const document = { a: { deep: [1] }, b: 1 };
  assert.equal(applyPatch(document, [{ op: "replace", path: "/b", value: 2 }]).a, document.a);
});

for (const [a, b, wanted] of [
  [{ x: 1, y: [2] }, { y: [2], x: 1 }, true],
  [[1, 2], [2, 1], false],
  [[], {}, false],
  [null, {}, false],
  [{ x: undefined }, { y: undefined }, false],
  [0, false, false],
  ["", "", true],
]) {
  test(`${JSON.stringify(a)} ${wanted ? "equals" : "differs from"} ${JSON.stringify(b)}`, () =>
    assert.equal(jsonEqual(a, b), wanted));
}

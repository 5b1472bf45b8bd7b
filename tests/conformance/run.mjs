// Plays scenarios.json with one kind of client against a server: `node run.mjs ours|sdk|react|mixed [name…]`.
// The server is named by AGENT_HOST (with its scheme), AGENT_PREFIX and AGENT_TOKEN; one JSON line per scenario.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

import { KINDS } from "./clients.mjs";

const { AGENT_HOST, AGENT_PREFIX = "agents", AGENT_TOKEN, AGENT_LIMIT_MS = "10000" } = process.env;
const LIMIT_MS = Number(AGENT_LIMIT_MS);
const POLL_MS = 10;

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The promise's value, or a failure that says what did not come. */
async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${LIMIT_MS} ms: ${what}`)), LIMIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Repeat until it throws no more; after the limit it throws what it threw last. */
async function eventually(check) {
  const deadline = Date.now() + LIMIT_MS;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await pause(POLL_MS);
    }
  }
}

const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const hexOf = (data) => [...new Uint8Array(data)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** "$name" and "$index" in any text of a step become what they stand for. */
function filled(value, words) {
  if (typeof value === "string" && value in words) return words[value];
  if (typeof value === "string") return value.replaceAll("$name", words.$name);
  if (Array.isArray(value)) return value.map((one) => filled(one, words));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, filled(one, words)]));
}

class Play {
  clients = new Map();

  constructor(kind, scenario, name) {
    this.kind = kind;
    this.scenario = scenario;
    this.name = name;
  }

  async run() {
    for (const step of this.scenario.steps) {
      const verb = Object.keys(step)[0];
      const letters = [step[verb]].flat();
      try {
        if (verb in this.together) await this.together[verb](letters, step);
        else for (const letter of letters) await this[verb](letter, filled(step, { $name: this.name }));
      } catch (error) {
        error.message = `${JSON.stringify(step)}: ${error.message}`;
        throw error;
      }
    }
  }

  end() {
    for (const { stop } of this.clients.values()) stop();
  }

  /** Verbs that take all their letters at once. */
  together = {
    set: (letters, step) => this.setAll(letters, step),
    converged: (letters, step) => this.converged(letters, step),
  };

  place(step) {
    const query = { ...step.query, ...(AGENT_TOKEN ? { token: AGENT_TOKEN } : {}) };
    const agent = step.agent ?? this.scenario.agent;
    const id = step.id ? { id: step.id } : {};
    const protocol = AGENT_HOST.startsWith("https") ? "wss" : "ws";
    return { agent, name: step.name ?? this.name, host: AGENT_HOST, prefix: AGENT_PREFIX, protocol, query, ...id };
  }

  at(letter) {
    return this.clients.get(letter);
  }

  client(letter) {
    return this.at(letter).current();
  }

  /** The value for this client's dialect, where the two differ. */
  wanted(letter, value) {
    const isSplit = typeof value === "object" && value !== null && "plain" in value && "extended" in value;
    return isSplit ? value[this.at(letter).dialect] : value;
  }

  async connect(letter, step) {
    this.clients.set(letter, this.kind.open(this.place(step), letter));
    const until = step.until ?? "ready";
    if (until !== "created") await within(this.at(letter).told.opens.take(), "open");
    if (until === "ready") await within(this.client(letter).ready, "ready");
  }

  send(letter, { text, hex, json }) {
    const data = json !== undefined ? JSON.stringify(json) : hex !== undefined ? bytes(hex) : text;
    this.client(letter).send(data);
  }

  async receive(letter, { text, hex, json }) {
    const data = await within(this.at(letter).told.messages.take(), "a message");
    if (hex !== undefined) {
      assert.notEqual(typeof data, "string", "a binary message");
      assert.equal(hexOf(data), hex);
    } else if (json !== undefined) assert.deepEqual(JSON.parse(data), json);
    else assert.equal(data, text);
  }

  async quiet(letter) {
    await within(this.client(letter).call("my_id"), "an answer");
    assert.deepEqual(this.at(letter).told.messages.left, []);
  }

  async call(letter, step) {
    const chunks = [];
    const stream = step.chunks ? { stream: { onChunk: (chunk) => chunks.push(chunk) } } : undefined;
    const call = within(this.client(letter).call(step.method, step.args, stream), `the answer of ${step.method}`);
    await this.outcome(letter, call, step);
    if (step.chunks) assert.deepEqual(chunks, step.chunks);
  }

  async stub(letter, step) {
    await this.outcome(letter, this.client(letter).stub[step.method](...step.args), step);
  }

  async outcome(letter, call, step) {
    if (step.error !== undefined) await assert.rejects(call, { message: step.error });
    else if (step.errorMatches) await assert.rejects(call, new RegExp(step.errorMatches));
    else if (step.nothing) assert.equal((await call) ?? null, null);
    else assert.deepEqual(await call, this.wanted(letter, step.result));
  }

  async calls(letter, { of, finish }) {
    const finished = [];
    const all = of.map(async ([method, args, result]) => {
      assert.deepEqual(await this.client(letter).call(method, args), result);
      finished.push(result);
    });
    await within(Promise.all(all), "all answers");
    assert.deepEqual(finished, finish);
  }

  async cancel(letter, { method, after }) {
    const controller = new AbortController();
    let count = 0;
    const onChunk = () => ++count === after && controller.abort(new Error("enough"));
    const call = this.client(letter).call(method, [], { stream: { onChunk }, signal: controller.signal });
    await assert.rejects(within(call, "the end"), { message: "enough" });
  }

  async eventually(letter, { method, result }) {
    await eventually(async () => assert.deepEqual(await this.client(letter).call(method), result));
  }

  /** Writes of several clients at once; only our own clients are told what became of them. */
  async setAll(letters, step) {
    const writes = [];
    for (let index = 0; index < (step.times ?? 1); index++) {
      for (const letter of letters) {
        const { state } = filled(step, { $name: this.name, $index: index });
        writes.push([letter, this.client(letter).setState(state)]);
      }
    }
    for (const [letter, write] of writes) {
      if (this.at(letter).dialect === "plain") continue;
      if (step.refused) await assert.rejects(within(write, "a refusal"), { message: step.refused });
      else await within(write, "an acknowledgement");
    }
  }

  shown(letter) {
    const { rendered, current } = this.at(letter);
    return rendered ? rendered() : current().state;
  }

  async state(letter, { is }) {
    const wanted = is === "undefined" ? undefined : is;
    await eventually(() => assert.deepEqual(this.shown(letter), wanted));
  }

  async converged(letters, { method }) {
    await eventually(async () => {
      const held = await this.client(letters[0]).call(method);
      for (const letter of letters) assert.deepEqual(this.shown(letter), held);
    });
  }

  async updates(letter, { are }) {
    await eventually(() => assert.deepEqual(this.at(letter).told.updates, are));
  }

  async stateError(letter, { are }) {
    await eventually(() => assert.deepEqual(this.at(letter).told.stateErrors, this.wanted(letter, are)));
  }

  identity(letter, { name, agent }) {
    assert.deepEqual(this.at(letter).told.identity, { name, agent });
    assert.deepEqual([this.client(letter).name, this.client(letter).agent], [name, agent]);
    assert.equal(this.client(letter).identified, true);
  }

  async notReady(letter) {
    const state = await Promise.race([this.client(letter).ready.then(() => "ready"), pause(50).then(() => "open")]);
    assert.equal(state, "open");
    assert.equal(this.client(letter).identified, false);
  }

  async closed(letter, { code, reason, final }) {
    const event = await within(this.at(letter).told.closes.take(), "a close");
    assert.deepEqual(event, { code, reason });
    await eventually(() => {
      const error = this.client(letter).connectionError;
      assert.equal(error?.code ?? null, final ? code : null);
    });
  }

  async reconnected(letter) {
    const { opens } = this.at(letter).told;
    await within(opens.take(), "the next open");
    await eventually(() => assert.equal(this.client(letter).identified, true));
  }

  reconnect(letter) {
    this.at(letter).told.opens.left.splice(0);
    this.client(letter).reconnect();
  }

  async closing(letter, { code, reason, method, args, error }) {
    const call = this.client(letter).call(method, args);
    this.client(letter).close(code, reason);
    await assert.rejects(within(call, "a rejection"), { message: error });
    assert.deepEqual(await within(this.at(letter).told.closes.take(), "a close"), { code, reason });
  }

  async fetch(letter, { path, method, body, status, json }) {
    const { protocol: _socket, ...place } = this.place({});
    const address = { ...place, path, protocol: AGENT_HOST.startsWith("https") ? "https" : "http" };
    const response = await this.kind.agentFetch(address, { method, body });
    assert.equal(response.status, status);
    const answer = await response.json();
    for (const [key, value] of Object.entries(json)) assert.deepEqual(answer[key], value);
  }
}

async function main([kindName, ...names]) {
  const kind = await KINDS[kindName]();
  const { scenarios } = JSON.parse(await readFile(new URL("scenarios.json", import.meta.url), "utf-8"));
  const dialect = kindName === "ours" ? "extended" : "plain";
  let failures = 0;
  for (const [index, scenario] of scenarios.entries()) {
    if (scenario.only && scenario.only !== dialect) continue;
    if (names.length > 0 && !names.includes(scenario.name)) continue;
    const play = new Play(kind, scenario, `${kindName}-${index}-${Date.now().toString(36)}`);
    const began = performance.now();
    let error = null;
    try {
      await play.run();
    } catch (problem) {
      failures += 1;
      error = problem.stack ?? String(problem);
    }
    play.end();
    console.log(JSON.stringify({ scenario: scenario.name, error, ms: Math.round(performance.now() - began) }));
  }
  process.exit(failures === 0 ? 0 : 1);
}

process.on("unhandledRejection", (error) => {
  console.log(JSON.stringify({ scenario: "unhandled rejection", error: error?.stack ?? String(error), ms: 0 }));
});
await main(process.argv.slice(2));

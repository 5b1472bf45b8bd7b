// One client that stays through whatever becomes of its server: `node returning.mjs ours|sdk`.
// Told by lines of JSON on stdin, ["method", args…]; tells {"open"}, {"close": code} and {"result", "state"} on stdout.
// The server is named by AGENT_HOST, AGENT_PREFIX and AGENT_TOKEN, the instance by AGENT_NAME.
import { createInterface } from "node:readline";

import { KINDS } from "./clients.mjs";

const { AGENT_HOST, AGENT_PREFIX, AGENT_TOKEN, AGENT_NAME } = process.env;
const tell = (fact) => console.log(JSON.stringify(fact));

const kind = await KINDS[process.argv[2]]();
const place = { agent: "Counter", name: AGENT_NAME, host: AGENT_HOST, prefix: AGENT_PREFIX, protocol: "ws" };
const opened = kind.open({ ...place, query: { token: AGENT_TOKEN } });
const client = opened.current();
client.addEventListener("open", () => tell({ open: true }));
client.addEventListener("close", (event) => tell({ close: event.code }));
for await (const line of createInterface({ input: process.stdin })) {
  const [method, ...args] = JSON.parse(line);
  client.call(method, args).then(
    (result) => tell({ result, state: client.state }),
    (error) => tell({ error: error.message }),
  );
}
opened.stop();

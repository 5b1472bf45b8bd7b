// The benchmarks' agent in the real Agents SDK; peers.py has the same for the other peers.
import { Agent, callable, routeAgentRequest } from "agents";

const TEXT = "x".repeat(100);
const LARGE = "x".repeat(65536);
const ROWS = Array.from({ length: 100 }, (_, id) => ({
  id,
  name: `item number ${id}`,
  done: false,
  note: "y".repeat(40),
}));

export class Bench extends Agent {
  onMessage(connection, message) {
    if (typeof message === "string") connection.send(message);
    else if (message.byteLength === 1) this.broadcast(TEXT);
    else if (message.byteLength === 2) this.setState({ ...this.state, count: this.state.count + 1 });
    else this.broadcast(LARGE);
  }

  add(a, b) {
    return a + b;
  }
}
callable()(Bench.prototype.add, { kind: "method", name: "add" });

export class Board extends Bench {
  initialState = { count: 100000000, rows: ROWS };
}

export default {
  async fetch(request, env) {
    return (await routeAgentRequest(request, env)) ?? new Response("Not found", { status: 404 });
  },
};

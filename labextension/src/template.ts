/** The notebook behind the launcher's card: an agent that works when its cells are run. */

const INTRODUCTION = `# A new agent

Run the cells. The second one deploys the class; run it again after a change, and the connections stay.`;

const CELLS = [
  'from jupyter_agents import Agent, callable_method, serve',
  `class Counter(Agent):
    initial_state = {"count": 0}

    def on_message(self, connection, message):
        self.broadcast(message)

    @callable_method
    def add(self, amount: int = 1) -> int:
        self.set_state({"count": self.state["count"] + amount})
        return self.state["count"]


counters = serve(Counter)
counters`,
  'counters["lobby"].add(1)'
];

/** Its content, for the contents API; `kernel` is the server's default kernel. */
export function agentNotebook(kernel: string): object {
  const cell = (source: string, index: number) => ({
    cell_type: 'code',
    execution_count: null,
    id: `agent-${index}`,
    metadata: {},
    outputs: [],
    source
  });
  const introduction = {
    cell_type: 'markdown',
    id: 'agent-introduction',
    metadata: {},
    source: INTRODUCTION
  };
  return {
    cells: [introduction, ...CELLS.map(cell)],
    metadata: { kernelspec: { name: kernel, display_name: kernel } },
    nbformat: 4,
    nbformat_minor: 5
  };
}

"""Talk to an agent from Python, anywhere: a script, a notebook, a test, another agent.

`client.connect` for coroutines, `sync.connect` for plain code, `fetch.agent_fetch` for HTTP.
Nothing here knows how agents are hosted; what is said on the wire stands in `protocol`.
"""

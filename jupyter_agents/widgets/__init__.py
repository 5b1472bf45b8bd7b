"""What you see in the notebook: live views of agents, and controls bound to their state.

They look at the agents' host from beside it and never run an agent's code on another thread than its own. Their
other half, in the browser, is `static/`.
"""

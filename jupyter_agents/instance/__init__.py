"""One living agent: its life, its hooks, its door, its calls, the telling of its state.

Runs in the kernel, on the agents' thread only. `host/host.py` moves the frames, this room decides
when a hook may run.
"""

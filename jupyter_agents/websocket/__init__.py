"""The fast socket path: WebSocket frames in large batches, under Tornado's handler.

Sans-io where it thinks (frames, outbox, conversation); two thin transports in `protocol`. Knows
nothing of agents; `server/sockets.py` puts it to use.
"""

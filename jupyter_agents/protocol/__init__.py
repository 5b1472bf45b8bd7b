"""What is said between a client and an agent: names, frames, close codes and state replicas.

Everything here is pure: bytes and values in, bytes and values out; no loop, clock, dice, socket
or logger. The other halves are `link` (how frames are carried) and `host` (who acts on them).
"""

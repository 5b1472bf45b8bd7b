"""How it is carried between Jupyter Server and kernel: frames, handshake, records and the relay.

Pure: no await, clock, dice, logger or I/O. The two transports sit in `server/downlink.py` and
`host/uplink.py`.
"""

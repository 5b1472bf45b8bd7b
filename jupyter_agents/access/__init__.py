"""Who gets in, and by what: credentials in requests, links that were shared, tickets.

Runs in the server's process, beside `server/`; plain Python that is handed requests and times.
"""

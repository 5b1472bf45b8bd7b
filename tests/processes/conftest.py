"""Real servers and kernels: see ``tests/live.py`` for what is there."""

from tests.live import (  # noqa: F401
    jupyter_server_process,
    kernel,
    pytest_runtest_makereport,
    start_server,
)

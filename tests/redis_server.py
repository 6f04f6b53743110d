"""A real Redis: at AEGIS_TEST_REDIS_URL, or started here where a redis-server is installed.

Python packages bring no Redis server, so that the suites that know one run on it only where the machine has it; they
run on the file and on memory everywhere.
"""

import atexit
import os
import shutil
import subprocess
import time
from functools import cache

import redis

from deploy.local.broker import free_port

URL = os.environ.get("AEGIS_TEST_REDIS_URL")
IS_THERE = bool(URL or shutil.which("redis-server"))


def emptied() -> str:
    """The same, without what earlier tests kept."""
    client = redis.Redis.from_url(shared_url())
    for key in client.scan_iter("aegis:*"):
        client.delete(key)
    return shared_url()


@cache
def shared_url() -> str:
    """Where the Redis of this test session answers."""
    if URL:
        return URL
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(server.kill)
    url, deadline = f"redis://127.0.0.1:{port}/0", time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            redis.Redis.from_url(url).ping()
            return url
        except redis.ConnectionError:
            time.sleep(0.05)
    raise RuntimeError("redis-server did not start")

"""Child processes: started, restarted with backoff when they end, stopped cleanly. They do not outlive their parent."""

import os
import subprocess  # nosec B404  # our own processes
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger()

EXIT_UNUSABLE = 2  # settings or stores that no restart mends
_STEADY = 60.0


@dataclass
class Child:
    """One supervised process; ``spawn`` starts it, and what it prints is in ``log_file``."""

    name: str
    spawn: Callable[[], subprocess.Popen[bytes]]
    log_file: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    started_at: float = 0.0

    def start(self) -> None:
        """Start it."""
        self.process = self.spawn()
        self.started_at = time.monotonic()

    def stop(self, *, timeout: float = 30.0) -> None:
        """SIGTERM, then SIGKILL after ``timeout`` seconds."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        return "\n".join(lines[-15:])


def command_child(name: str, command: Sequence[str], log_file: Path, environment: Mapping[str, str]) -> Child:
    """A child that is a command with additions to this process's environment."""
    return Child(name, lambda: spawn(command, log_file, environment), log_file)


class Supervisor:
    """Keeps children running, in a thread of its own."""

    def __init__(self, children: Sequence[Child], *, backoff_max: float) -> None:
        self.children = children
        self.failure: str | None = None
        self._backoff_max = backoff_max
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start every child that does not run yet, in order, and keep them running."""
        for child in self.children:
            if child.process is None:
                child.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop the children, the last started first."""
        self._stopping.set()
        self._thread.join()
        for child in reversed(self.children):
            child.stop()

    def _run(self) -> None:
        due: dict[str, float] = {}
        while not self._stopping.wait(0.2):
            for child in self.children:
                if child.process is None or child.process.poll() is None:
                    continue
                if child.name not in due:
                    self._note_end(child, due)
                elif time.monotonic() >= due[child.name]:
                    self._restart(child, due)

    def _restart(self, child: Child, due: dict[str, float]) -> None:
        child.restarts += 1
        try:
            child.start()
        except OSError as error:  # no memory or no processes left: try again
            log.warning("child-not-started", child=child.name, error=str(error))
            due[child.name] = time.monotonic() + self._backoff_max
        else:
            del due[child.name]

    def _note_end(self, child: Child, due: dict[str, float]) -> None:
        status = child.process.returncode if child.process else None
        if status == EXIT_UNUSABLE:
            self.failure = f"{child.name} cannot start: {child.last_words()}"
        if time.monotonic() - child.started_at > _STEADY:
            child.restarts = 0
        wait = min(self._backoff_max, 0.5 * 2 ** min(child.restarts, 16))
        due[child.name] = time.monotonic() + wait
        log.warning("child-ended", child=child.name, status=status, restart_in=wait)


# Linux signals a child when the *thread* that started it ends (prctl(2)): this one lives as long as the process.
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="spawner")

# Asks for SIGTERM when the parent ends (PR_SET_PDEATHSIG, kept by exec), and becomes the command. Not by preexec_fn:
# what runs between fork and exec in a process with threads may crash.
_TIED = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"
    "os.getppid() == int(sys.argv[1]) or sys.exit(1)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


def spawn(
    command: Sequence[str], log_file: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process that is sent SIGTERM when this one ends, however it ends (on Linux)."""
    tied = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid())] if sys.platform == "linux" else []

    def start() -> subprocess.Popen[bytes]:
        with log_file.open("ab") as output:
            return subprocess.Popen(  # nosec B603  # a list, no shell; the commands are ours
                [*tied, *command],
                stdout=output,
                stderr=output,
                env=os.environ | dict(environment or {}),
                start_new_session=True,
            )

    return _SPAWNER.submit(start).result()


def step_back(nice: int) -> None:
    """Let other processes have the CPU first: 0 changes nothing, 19 is the furthest.

    Where Linux groups processes by session (sched(7), autogroup), niceness counts only among those of one session, so
    the group steps back as well.
    """
    os.nice(nice)
    group = Path("/proc/self/autogroup")
    if nice and group.exists():
        with suppress(OSError):  # it may not be changed often, nor by everyone
            group.write_text(str(nice), encoding="ascii")

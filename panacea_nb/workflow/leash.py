"""A small process beside the driver: when the driver is killed it ends whatever the run started.

Run as a script, on its own and with the standard library only, so that it costs a few MB:
``leash.py DRIVER_PID TOKEN SCRATCH``; the scratch folder is removed at the end.
Parsl's interchange and worker pool would else live on for minutes and go on executing tasks.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

PERIOD = 0.3  # s


def marked(token):
    """Process ids whose environment holds the run's token (Linux; elsewhere the workers' own watch has to do)."""
    mark = f"PANACEA_NB_RUN={token}".encode()
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as stream:
                    if mark in stream.read().split(b"\0"):
                        found.append(int(name))
    return found


def tidies_up(pid):
    """Whether it is one of Python's resource trackers, which remove semaphores of killed processes and then end."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as stream:
        return b"multiprocessing.resource_tracker" in stream.read()
    return False


def main(driver, token, scratch):
    """Wait for the driver's end, then clean up for ten seconds at most."""
    while os.getppid() == driver:
        time.sleep(PERIOD)
    quiet = tidying = 0
    for _ in range(50):
        alive = marked(token)
        others = [pid for pid in alive if not tidies_up(pid)]
        tidying = 0 if others else tidying + 1
        for pid in others or (alive if tidying > 10 else []):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        # Looked at more than once: a process may have been in the middle of starting another.
        quiet = 0 if alive else quiet + 1
        if quiet == 3:
            break
        time.sleep(0.2)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])

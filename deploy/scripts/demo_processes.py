"""The processes of the demo: started with a log each, always cleaned up."""

import ctypes
import json
import os
import signal
import subprocess
import time

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class DemoError(Exception):
    """Something that should have worked did not; the message says what and where to look."""


def wait_for(what, condition, seconds, every=0.02):
    """Calls `condition` until it returns something true; returns that. Raises DemoError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise DemoError(f"{what}: not within {seconds} s")
        time.sleep(every)


class Processes:
    """Children of the demo. They end with it, also when it is killed, unless `keep`; `directory` gets their logs."""

    def __init__(self, directory, keep):
        self.directory = directory
        self.keep = keep
        self.children = {}  # name -> Popen, in the order of their start
        self.at_end = []    # commands for what is not our child (Apache Kafka)

    def log(self, name):
        return os.path.join(self.directory, name + ".log")

    def start(self, name, command):
        """Starts it in a session of its own, so that Ctrl-C reaches only the demo, which ends its children in order."""
        keep = self.keep

        def die_with_parent():
            if not keep:
                _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        with open(self.log(name), "ab") as log:
            log.write(("$ " + " ".join(command) + "\n").encode())
            log.flush()
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                     preexec_fn=die_with_parent)  # pylint: disable=subprocess-popen-preexec-fn
        self.children[name] = child
        self._write_pids()
        return child

    def _write_pids(self):
        with open(os.path.join(self.directory, "pids.json"), "w", encoding="utf-8") as f:
            json.dump({name: child.pid for name, child in self.children.items()}, f)

    def check_alive(self, name):
        code = self.children[name].poll()
        if code is not None:
            raise DemoError(f"{name} ended with exit code {code}; the end of {self.log(name)}:\n{tail(self.log(name))}")

    def address(self, name, path, seconds=30):
        """Waits for the address file of a child that has just been started."""
        def written():
            self.check_alive(name)
            try:
                with open(path, encoding="utf-8") as f:
                    return f.read().strip()
            except FileNotFoundError:
                return ""
        return wait_for(f"{name} writes its address to {path}", written, seconds)

    def kill(self, name):
        child = self.children[name]
        child.send_signal(signal.SIGKILL)
        child.wait()

    def stop_all(self):
        """SIGTERM to the last started first; SIGKILL to what is still there after 15 s. Returns {name: exit code}."""
        codes = {}
        for name, child in reversed(list(self.children.items())):
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
            codes[name] = child.returncode
        for command in self.at_end:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           check=False)
        self.children.clear()
        return codes


def run(command, log, show_stderr=False):
    """Runs to the end; returns standard output. Standard error goes to the log, or to the terminal (progress bars)."""
    with open(log, "ab") as f:
        f.write(("$ " + " ".join(command) + "\n").encode())
        f.flush()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=None if show_stderr else f, check=False)
        f.write(done.stdout)
    if done.returncode != 0:
        raise DemoError(f"`{' '.join(command)}` ended with exit code {done.returncode}; the end of {log}:\n{tail(log)}")
    return done.stdout.decode()


def tail(path, lines=12):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-lines:])
    except FileNotFoundError:
        return ""


def end_leftovers(directory, binary):
    """Ends what an earlier `--keep` left running: those processes in its pids.json that are our binary's."""
    try:
        with open(os.path.join(directory, "pids.json"), encoding="utf-8") as f:
            pids = json.load(f)
    except (FileNotFoundError, ValueError):
        return
    for pid in reversed(list(pids.values())):
        if _runs(pid, binary):
            os.kill(pid, signal.SIGTERM)
    for pid in pids.values():
        deadline = time.monotonic() + 15
        while _runs(pid, binary):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def _runs(pid, binary):
    try:
        return os.path.realpath(f"/proc/{pid}/exe") == os.path.realpath(binary)
    except OSError:
        return False

"""What the demo prints: headings, lines, one live line, a table. Plain lines where there is no terminal."""

import os
import shutil
import sys
import time

_PLAIN_SECONDS = 2.0  # between two live lines in a log


class Terminal:
    """Writes to standard output. One live line at a time; any other output ends it. Not thread-safe."""

    def __init__(self):
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.colour = self.terminal and "NO_COLOR" not in os.environ
        self._live = False
        self._plain_at = 0.0
        self._step = 0

    def _style(self, code, text):
        return f"\033[{code}m{text}\033[0m" if self.colour else text

    def _write(self, text):
        if self._live:
            sys.stdout.write("\n")
            self._live = False
        print(text, flush=True)

    def step(self, text):
        self._step += 1
        self._write("\n" + self._style("1", f"{self._step}. {text}"))

    def line(self, text=""):
        self._write("   " + text if text else "")

    def proof(self, holds, text):
        mark = self._style("32", "holds") if holds else self._style("1;31", "FAILS")
        self._write(f"   {mark}  {text}")

    def live(self, text):
        """Redrawn in place on a terminal; else one line every two seconds."""
        if self.terminal:
            width = shutil.get_terminal_size().columns
            sys.stdout.write("\r\033[K" + ("   " + text)[: width - 1])
            sys.stdout.flush()
            self._live = True
        elif time.monotonic() >= self._plain_at:
            self._plain_at = time.monotonic() + _PLAIN_SECONDS
            print("   " + text, flush=True)

    def table(self, rows):
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            self.line(f"{name:<{width}}  {value}")


def milliseconds(seconds):
    """A duration for people; seconds may be None."""
    if seconds is None:
        return "-"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.{1 if seconds < 0.1 else 0}f} ms"
    return f"{seconds:.1f} s"

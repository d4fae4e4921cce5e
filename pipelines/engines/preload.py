"""Imported by the process that Dask's workers on this machine are forked from: they begin with all that stages need, and with kernels loaded."""

from __future__ import annotations

import atexit
import os
import signal

before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run: nothing here tells of it

import distributed.nanny  # noqa: E402, F401

import gristmill.pipelines.runner  # noqa: E402, F401  what every stage needs
from gristmill.kernels.warm import warm  # noqa: E402

warm()
signal.signal(signal.SIGINT, before)
atexit.register(os._exit, 0)  # it ends with the run's process: at once, for it holds that one's output open

"""Imported by the process that Dask's workers on this machine are forked from: they begin with all that stages need, and with kernels loaded."""

from __future__ import annotations

import atexit
import os

import distributed.nanny  # noqa: F401

import gristmill.pipelines.runner  # noqa: F401  what every stage needs
from gristmill.kernels.warm import warm

warm()
atexit.register(os._exit, 0)  # it ends with the run's process: at once, for it holds that one's output open

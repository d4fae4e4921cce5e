"""Imported by the process that children are forked from: what each of them would load anew is there already."""

from __future__ import annotations

from gristmill.kernels.warm import warm

from . import moments  # noqa: F401

warm()

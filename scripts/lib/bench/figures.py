"""Percentiles, and the line that says what else was going on."""

import os
import statistics

middle = statistics.median


def percentile(values, share):
    """The nearest rank, 0 to 1."""
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)]


def machine():
    load, cores = os.getloadavg()[0], os.cpu_count()
    return f"{cores} cores, Linux {os.uname().release}, load average before the run {load:.1f}"


def verdict(value, limit):
    return "reached" if value <= limit else "missed"

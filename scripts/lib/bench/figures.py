"""Percentiles, and the line that says what else was going on."""

import os
import random
import statistics

middle = statistics.median


def percentile(values, share):
    """The nearest rank, 0 to 1."""
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)]


def interval(values, confidence=0.95, draws=10_000):
    """Between which figures the median of so many like these lies: a bootstrap, the same each time."""
    chance = random.Random(1)
    medians = sorted(middle(chance.choices(values, k=len(values))) for _ in range(draws))
    rest = (1 - confidence) / 2
    return percentile(medians, rest), percentile(medians, 1 - rest)


def ratios(before, after):
    """Of pairs, as two cells of a table: the median, and where it lies."""
    pairs = [b / a for a, b in zip(before, after)]
    low, high = interval(pairs)
    return f"{middle(pairs):.3f} | {low:.3f} to {high:.3f}"


def machine():
    load, cores = os.getloadavg()[0], os.cpu_count()
    return f"{cores} cores, Linux {os.uname().release}, load average before the run {load:.1f}"


def verdict(value, limit):
    return "reached" if value <= limit else "missed"

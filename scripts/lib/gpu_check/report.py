"""Rows, tables and aims: what is printed, and what goes into the JSON file."""

import json

REACHED, MISSED, UNJUDGED = "reached", "missed", "not judged"
# Why a row or an aim of a rehearsal says nothing.
NO_GPU = "no GPU"
# What is cut here is whole in the JSON file.
WIDEST = 160


class Table:
    """The rows of one section. Each row that was promised is there at the end, if only with the reason
    why it could not be had."""

    def __init__(self, name, title, columns, promised):
        self.name, self.title, self.columns, self.promised = name, title, columns, promised
        self.rows = {}

    def add(self, row, cells, why=None, **figures):
        """`why` says why a row is not what it should be; its figures are then no results."""
        self.rows[row] = {"section": self.name, "name": row, "cells": cells, "why": why, "figures": figures}

    def fill(self, why):
        for row in self.promised:
            if row not in self.rows:
                self.add(row, [], why=why)

    def lines(self):
        yield f"\n{self.title}\n"
        yield line(["", *self.columns])
        yield "|" + "---|" * (len(self.columns) + 1)
        for row in self.rows.values():
            cells = [str(cell) for cell in row["cells"]]
            if row["why"]:
                # In the first cell, so that it is read before any figure.
                cells = [f"{row['why']}" + (f" ({'; '.join(cells)})" if cells else "")]
            cells += [""] * (len(self.columns) - len(cells))
            yield line([row["name"], *cells])

    def figures(self, row):
        """Of a row that holds; else None."""
        found = self.rows.get(row)
        return found["figures"] if found and not found["why"] else None


class Aim:
    def __init__(self, name, verdict, text):
        self.name, self.verdict, self.text = name, verdict, text

    @classmethod
    def judged(cls, name, reached, text):
        return cls(name, REACHED if reached else MISSED, text)


class Report:
    def __init__(self, about):
        self.about, self.tables, self.aims = about, [], []

    def as_json(self):
        rows = [row for table in self.tables for row in table.rows.values()]
        aims = [{"name": aim.name, "verdict": aim.verdict, "text": aim.text} for aim in self.aims]
        return json.dumps({"about": self.about, "rows": rows, "aims": aims}, indent=1) + "\n"

    def aim_lines(self):
        yield "\nAims\n"
        yield line(["", "", "seen"])
        yield "|---|---|---|"
        for aim in self.aims:
            yield line([aim.name, aim.verdict, aim.text])

    def all_reached(self):
        return not any(aim.verdict == MISSED for aim in self.aims)


def line(cells):
    # A bar or a line break in an error's text would end its cell.
    flat = (" ".join(str(cell).replace("|", "/").split()) for cell in cells)
    return "| " + " | ".join(cell if len(cell) <= WIDEST else cell[:WIDEST] + "…" for cell in flat) + " |"


def unmeasured(plan, name, table, row):
    """The aim of a row that has no result for it."""
    why = table.rows[row]["why"] or NO_GPU
    return Aim(name, UNJUDGED if why == NO_GPU and not plan.on_gpu else MISSED, why)

"""The sections of a run. Each has a NAME, a TITLE, COLUMNS, and functions:

* rows(plan): the rows that its table has in any case;
* run(context, table): measures and adds them;
* aims(plan, table): what is to be reached, judged.
"""

"""Hypothesis for the whole suite: the same instances every time, none too slow for a busy machine."""

from hypothesis import settings

settings.register_profile("suite", deadline=None, derandomize=True, database=None,
                          max_examples=50, report_multiple_bugs=False)
settings.load_profile("suite")

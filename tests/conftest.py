"""What several test files share."""

import pytest
from hypothesis import settings

import lnn_core as lnn

# The same instances every time, and no limit that a busy machine could miss.
settings.register_profile("suite", deadline=None, derandomize=True, database=None,
                          max_examples=50, report_multiple_bugs=False)
settings.load_profile("suite")


@pytest.fixture
def idle(monkeypatch):
    """Fails the test where a network computes anything, inference included."""
    def never(*_, **__):
        pytest.fail("computed before checking")

    for method in ("activations", "forward", "preactivation"):
        monkeypatch.setattr(lnn.LiftedNetwork, method, never)


@pytest.fixture
def replace(monkeypatch):
    """replace(module, name=value, …) for the test's time."""
    def put(module, **values):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    return put

"""What several test files share."""

import pytest
from hypothesis import settings

import lnn_core as lnn

# The same instances every time, and no limit that a busy machine could miss.
settings.register_profile("suite", deadline=None, derandomize=True, database=None,
                          max_examples=50, report_multiple_bugs=False)
settings.load_profile("suite")

#: What `make test-fast` leaves out: tests that build the book or drive a browser (by
#: their fixtures), and files that start many processes, train, go through all notebooks or records, or draw
#: every explorable. What remains takes some 200 seconds of one core.
SLOW_FIXTURES = {"browser", "build"}
SLOW_FILES = {"test_benchmarks.py", "test_drift.py", "test_mutants.py", "test_notebooks.py",
              "test_quick_run.py", "test_real_network.py", "test_real_network_page.py", "test_scale_out.py",
              "test_stills.py", "test_widgets.py"}


def pytest_configure(config):  # here, as mutants are tested without pyproject.toml
    config.addinivalue_line("markers", "slow: left out by `make test-fast`")


def pytest_collection_modifyitems(items):
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())) or item.path.name in SLOW_FILES:
            item.add_marker("slow")


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

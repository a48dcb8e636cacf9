"""A notebook's shell in this process."""

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


@pytest.fixture
def shell(monkeypatch):
    """An interactive shell that tells everybody it belongs to a kernel; `display_pub.outputs` has what is displayed."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}),
                                      display_pub_class=CapturingDisplayPublisher)
    monkeypatch.setattr(shell, "kernel", True, raising=False)
    yield shell
    InteractiveShell.clear_instance()

"""Models. Modules that have moved are found by their earlier names, too: cards tell their readers to import those."""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_MOVED = {
    "toolkit.models.ablations": "toolkit.models.series.ablations",
    "toolkit.models.forecasting_baselines": "toolkit.models.small.linear",
    "toolkit.models.keras_forda": "toolkit.models.small.keras_forda",
    "toolkit.models.perceptron": "toolkit.models.small.perceptron",
    "toolkit.models.recurrent": "toolkit.models.small.recurrent",
}


class _Moved(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in _MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(_MOVED[module.__name__])  # which import then gives


sys.meta_path.append(_Moved())

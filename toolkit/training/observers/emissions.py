"""What a run takes of electricity, and what that emits: codecarbon, in its offline mode, best effort.

Counters are read where there are any: RAPL's of the processor, NVML's of a GPU. Elsewhere codecarbon multiplies the
processor's load with the power its maker states, and assumes some watts for the memory; `method` says which it was.
"""

import logging
import os
import threading
import warnings
from pathlib import Path

from toolkit.errors import UserError, did_you_mean
from toolkit.run.files import read_json, write_json
from toolkit.run.schema import Emissions
from toolkit.training.observers.base import Observer

SAMPLING_SECONDS = 15


class EnergyMeter(Observer):
    """Adds to emissions.json in the run's directory, over all its interruptions; energy that went into a stretch that
    was lost is counted, too.

    One process is counted by what it computes itself, of a group the whole machine of rank 0, and no other machine. A
    GPU is counted as a whole. Without `country` there is an energy, and no emissions.
    """

    def __init__(self, path: Path, country: str):
        """country: ISO 3166-1 alpha-3, for instance FRA. UserError for one that codecarbon does not know."""
        self.path, self.country, self.tracker, self.total = path, country, None, None
        try:
            from codecarbon import OfflineEmissionsTracker
            from codecarbon.input import DataSource
            from codecarbon.output_methods.base_output import BaseOutput
        except ModuleNotFoundError:
            warnings.warn("the energy is not measured: codecarbon is not installed; pip install "
                          "'pretraining-toolkit[tracking]'", stacklevel=2)
            return
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        if country and country not in (known := DataSource().get_global_energy_mix_data()):
            raise UserError(f"training.country is {country!r}; give the three letters of ISO 3166-1, for instance FRA."
                            f"{did_you_mean(country.upper(), known)}")
        self.before = read_json(path, Emissions) if path.exists() else {}

        class Keep(BaseOutput):
            def out(_, total, delta) -> None:  # noqa: N805
                self.total = total

        # Everything is named here, so that no ~/.codecarbon.config sends anything anywhere.
        self.tracker = OfflineEmissionsTracker(
            country_iso_code=country or None, region=None, cloud_provider=None, electricitymaps_api_token=None,
            emissions_endpoint=None, output_methods=[], output_handlers=[Keep()], api_call_interval=-1,
            measure_power_secs=SAMPLING_SECONDS, log_level="critical", allow_multiple_runs=True,
            tracking_mode="process" if int(os.environ.get("WORLD_SIZE", "1")) == 1 else "machine")
        # Looking for counters takes a second or more, in which training need not wait.
        self.starting = threading.Thread(target=self.tracker.start, daemon=True)
        self.starting.start()

    def evaluated(self) -> None:
        """Write what it has come to so far."""
        if self.tracker is not None and not self.starting.is_alive():
            self.tracker.flush()
            self._write()

    def close(self) -> None:
        if self.tracker is not None:
            self.starting.join(10)
            self.tracker.stop()
            self._write()
            self.tracker = None

    def _write(self) -> None:
        if self.total is None:
            return
        total = self.total
        now = {"seconds": total.duration, "energy_kwh": total.energy_consumed, "cpu_kwh": total.cpu_energy,
               "gpu_kwh": total.gpu_energy, "ram_kwh": total.ram_energy}
        summed = {key: value + self.before.get(key, 0.0) for key, value in now.items()}
        if self.country and total.energy_consumed:
            summed["emissions_kg"] = summed["energy_kwh"] * total.emissions / total.energy_consumed
        world = int(os.environ.get("WORLD_SIZE", "1"))
        write_json(self.path, {
            **summed, "country": total.country_name if self.country else None,
            "country_iso_code": self.country or None, "method": self._method(), "counted": total.tracking_mode,
            "processor": total.cpu_model, "gpu": total.gpu_model or None,
            "machines": world // int(os.environ.get("LOCAL_WORLD_SIZE", world)),
            "codecarbon": total.codecarbon_version})

    def _method(self) -> str:
        """How the processor's power was found, in words."""
        parts = {type(part).__name__: part for part in getattr(self.tracker, "_hardware", ())}
        processor = parts.get("CPU")
        mode, watts = getattr(processor, "_mode", None), getattr(processor, "_tdp", None)
        if mode == "cpu_load" and watts:
            return f"estimated: {watts:g} W assumed for the whole processor at full load, times its load"
        return {"intel_rapl": "measured: RAPL counters", "constant": "estimated: a constant power",
                "cpu_load": "estimated: from the processor's load"}.get(mode, "by codecarbon, not known how")

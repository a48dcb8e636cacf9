"""What a forecast is off by: sums by channel and step, added up over batches and processes in constant memory."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from toolkit.errors import UserError

_RESIDUALS = 2**25
"""Residuals kept for intervals, over all processes: 134 MB. Windows beyond are passed over evenly; neighbouring ones
are nearly the same."""

_ROUNDING = 1e-6
"""Standardised values that differ by less are one. The forecast of a channel that stands still is the same number but
for its last bits, which must not decide on which side of it the truth lies."""


class ForecastScores:
    """Squared, absolute and scaled errors and, given quantiles, pinball losses and coverage.

    `state` and `merge` as with `toolkit.metrics`: merge the states of all processes into a fresh one. Values that were
    not observed count for nothing.
    """

    def __init__(self, channels: int, horizon: int, quantiles: Sequence[float] = ()):
        self.quantiles, shape = np.asarray(quantiles, np.float64), (channels, horizon)
        self.sums = {name: np.zeros(shape) for name in ("count", "squared", "absolute", "scaled", "scaled_count",
                                                        "inside")}
        self.sums |= {name: np.zeros((*shape, len(self.quantiles))) for name in ("pinball", "below")}

    def add(self, prediction: np.ndarray, future: np.ndarray, observed: np.ndarray | None = None,
            scale: np.ndarray | None = None, offsets: np.ndarray | None = None) -> None:
        """prediction, future, observed (b, channels, horizon); scale (b, channels), the unit of MASE, where it is 0 or
        NaN the error in it is undefined and left out; offsets (channels, horizon, quantiles): quantile − prediction.
        """
        residual = future.astype(np.float64) - prediction
        if not np.isfinite(residual).all():
            raise UserError("the forecast is no finite number; the model has diverged. Lower training.learning_rate.")
        seen = np.ones(residual.shape, bool) if observed is None else observed.astype(bool)
        absolute = np.abs(residual)
        self.sums["count"] += seen.sum(0)
        self.sums["squared"] += np.square(residual).sum(0, where=seen)
        self.sums["absolute"] += absolute.sum(0, where=seen)
        if scale is not None:
            defined = seen & (scale > 0)[..., None]
            self.sums["scaled"] += (absolute / np.where(scale > 0, scale, 1)[..., None]).sum(0, where=defined)
            self.sums["scaled_count"] += defined.sum(0)
        for place, quantile in enumerate(self.quantiles):
            above = residual - offsets[..., place]  # of the true value over the quantile
            self.sums["pinball"][..., place] += np.maximum(quantile * above, (quantile - 1) * above).sum(0, where=seen)
            self.sums["below"][..., place] += (seen & (above <= _ROUNDING)).sum(0)
        if len(self.quantiles):
            self.sums["inside"] += (seen & inside(offsets[..., 0], offsets[..., -1], residual, _ROUNDING)).sum(0)

    def state(self) -> dict[str, np.ndarray]:
        return dict(self.sums)

    def merge(self, states: Iterable[Mapping[str, np.ndarray]]) -> "ForecastScores":
        for state in states:
            self.sums = {name: total + state[name] for name, total in self.sums.items()}
        return self

    def mean(self, name: str, axis: int | tuple[int, ...] = (0, 1)) -> np.ndarray:
        """`name`'s mean over channels and steps (axis 0 and 1); NaN where nothing was observed."""
        total, count = self.sums[name].sum(axis), self.sums["scaled_count" if name == "scaled" else "count"].sum(axis)
        count = count.reshape(count.shape + (1,) * (np.ndim(total) - np.ndim(count)))
        return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)

    def result(self) -> dict:
        """Overall mse, mae, mase, and by step; given quantiles also their loss, overall, by quantile and by step, the
        share of true values at or below each, and coverage: the share from the first quantile to the last, both
        included. None: undefined.
        """
        scores = {"mse": self.mean("squared"), "mae": self.mean("absolute"), "mase": self.mean("scaled"),
                  "mse_by_step": self.mean("squared", 0), "mae_by_step": self.mean("absolute", 0)}
        if len(self.quantiles):
            loss = self.mean("pinball")
            scores |= {"quantiles": self.quantiles, "quantile_loss": loss.mean(), "quantile_losses": loss,
                       "quantile_loss_by_step": self.mean("pinball", 0).mean(-1),
                       "share_below": self.mean("below"), "share_below_by_step": self.mean("below", 0).T,
                       "coverage": self.mean("inside"), "coverage_by_step": self.mean("inside", 0)}
        return {name: plain(value) for name, value in scores.items()}


def inside(low: np.ndarray, high: np.ndarray, references: np.ndarray, rounding: float = 0.0) -> np.ndarray:
    """bool: whether each reference lies in [low, high], both ends included; by `rounding` more, where all three are
    known no better.

    The one definition of coverage here. Where many values are equal, such as the zeros of what is seldom sold, an
    interval may be a single number, and whoever leaves out an end leaves out all of them.
    """
    return (low - rounding <= references) & (references <= high + rounding)


def plain(value):
    """Numbers and nested lists for JSON; NaN becomes None."""
    if isinstance(value, np.ndarray) and value.ndim:
        return [plain(item) for item in value]
    return None if np.isnan(value) else float(value)


def calibration_stride(windows: int, channels: int, horizon: int) -> int:
    """Every so manyth validation window's residuals are kept for `residual_quantiles`."""
    return -(-windows * channels * horizon // _RESIDUALS)


def residual_quantiles(residuals: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """(n, channels, horizon) true − predicted values of held-out windows, NaN where not observed → (channels, horizon,
    quantiles), what to add to a forecast for its quantiles. By steps and channels: errors grow with the horizon.

    Split-conformal prediction (Vovk, Gammerman & Shafer 2005, *Algorithmic learning in a random world*, section 4.1;
    Lei et al. 2018, *Distribution-free predictive inference for regression*; for horizons Stankevičiūtė et al. 2021),
    each side by itself: of n residuals the ⌈q (n + 1)⌉-th for q ≥ 1/2 and the ⌊q (n + 1)⌋-th below. Were windows
    exchangeable, as many true values would lie below as promised, whatever the model. Windows that overlap, and years
    that differ, are not: so coverage on test is measured and reported.
    """
    n, ranks = _ranks(residuals, quantiles)
    if lacking := sorted({*quantiles} - {*known_quantiles(residuals, quantiles)}):
        needed = int(np.ceil(max(1 / lacking[0], 1 / (1 - lacking[-1])) - 1 - 1e-9))
        raise UserError(f"validation has {n.min()} observed residuals for some step and channel; quantiles "
                        f"{lacking} need at least {needed}. Give validation more rows (data.borders).")
    ordered = np.sort(residuals, 0)  # NaN last
    return np.take_along_axis(ordered, np.moveaxis(ranks - 1, -1, 0), 0).transpose(1, 2, 0)


def known_quantiles(residuals: np.ndarray, quantiles: Sequence[float]) -> list[float]:
    """Those of `quantiles` for which every step and channel has residuals enough."""
    n, ranks = _ranks(residuals, quantiles)
    known = ((ranks >= 1) & (ranks <= n[..., None])).all((0, 1))
    return [quantile for quantile, enough in zip(quantiles, known, strict=True) if enough]


def _ranks(residuals: np.ndarray, quantiles: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(channels, horizon) how many residuals there are; (channels, horizon, quantiles) which of them is the quantile,
    from 1 on.
    """
    quantiles = np.asarray(quantiles, np.float64)
    n = (~np.isnan(residuals)).sum(0)
    ranks = quantiles * (n[..., None] + 1)
    # 0.9 · 10 is 9.000000000000002 for some; its ceiling is not 10.
    return n, np.where(quantiles >= 0.5, np.ceil(ranks - 1e-9), np.floor(ranks + 1e-9)).astype(int)

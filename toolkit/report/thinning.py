"""Long curves, drawn with few points."""

import numpy as np


def kept_points(values: np.ndarray, most: int) -> np.ndarray:
    """Places of at most `most` of n values, in order, that look like all of them: the lowest and the highest of each
    stretch. (n,) values → (≤ most,) places.
    """
    if len(values) <= most:
        return np.arange(len(values))
    bounds = np.linspace(0, len(values), most // 2 + 1).astype(int)
    return np.unique([start + pick(values[start:stop]) for start, stop in zip(bounds[:-1], bounds[1:], strict=True)
                      for pick in (np.argmin, np.argmax)])

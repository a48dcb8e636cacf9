"""Models of series. `import toolkit.models.series`, which cards tell their readers to write, makes them known to
transformers.
"""

from toolkit.models.series.patches import (
    SeriesConfig,
    SeriesForClassification,
    SeriesForForecasting,
    SeriesForMaskedPatches,
)

__all__ = ["SeriesConfig", "SeriesForClassification", "SeriesForForecasting", "SeriesForMaskedPatches"]

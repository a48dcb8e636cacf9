"""Models of texts. `import toolkit.models.text`, which cards tell their readers to write, makes them known to
transformers.
"""

from toolkit.models.text.classifier import TextConfig, TextForClassification

__all__ = ["TextConfig", "TextForClassification"]

"""What a fine-tuned model answers to a file, of texts or of series."""


from dataclasses import replace

import pandas as pd

from toolkit.errors import UserError
from toolkit.inference.series_answers import answers_of_series
from toolkit.inference.settings import PredictConfig
from toolkit.inference.table_forecasts import forecast_table, is_forecaster
from toolkit.inference.text_answers import answers_of_file
from toolkit.models.load import checkpoint_config, model_directory
from toolkit.models.registry import is_classifier, model_class
from toolkit.shown import tell


def predict(settings: PredictConfig) -> pd.DataFrame:
    """A row an input: the columns of `answers_table`; then all of the file's, but for the values of series."""
    settings = replace(settings, model=model_directory(settings.model))
    shape = checkpoint_config(settings.model)
    if is_forecaster(shape):
        return forecast_table(settings.model, settings.file, settings.data.time_column, settings.data.series_column,
                              settings.data.reading(), settings.batch_size)
    if not is_classifier(shape):
        raise UserError(f"{settings.model}: is a {', '.join(shape.architectures or ['model'])}, not a classifier. "
                        f"Fine-tune it first: make finetune-text CONFIG=recipes/configs/authorship.yaml"
                        f" (series: make finetune-series CONFIG=recipes/configs/gunpoint.yaml).")
    if model_class(shape).main_input_name != "values":
        return answers_of_file(settings.model, shape, settings.file, settings.text_column, settings.text_pair_column,
                               settings.data.reading(tell), settings.batch_size)
    return answers_of_series(settings.model, shape, settings.file, settings.data, settings.sampling_rate,
                             settings.batch_size)

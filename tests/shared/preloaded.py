"""What the fork server has done before it starts a process: each of them would do it again, for seconds.

Imported by the server alone. No thread may live when it forks, so that nothing here starts one.
"""

import gc
import importlib

import torch
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from toolkit.training.observers.throughput import matmul_peak

for name in ("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "sentencex", "sklearn.linear_model",
             "transformers.models.bert.modeling_bert", "transformers.models.gpt2.modeling_gpt2",
             "toolkit.commands.finetune_series", "toolkit.commands.finetune_text", "toolkit.commands.pretrain_bert",
             "toolkit.commands.pretrain_gpt", "toolkit.models.word_vectors", "toolkit.report.run_report"):
    importlib.import_module(name)

torch.set_num_threads(1)
matmul_peak(torch.device("cpu"), torch.float32)
get_checkpoint_conversion_mapping("bert")

# Every training looks for garbage first, among all that was imported: a third of a second. It stays, so need not be
# looked at, whatever a training thaws when it ends.
gc.collect()
gc.freeze()
gc.unfreeze = lambda: None

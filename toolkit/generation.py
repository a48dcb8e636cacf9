"""Ask a finished model something: masked words from a BERT, continuations from a GPT."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer


def fill_mask(model_dir: str | Path, text: str, top_k: int = 5) -> list[tuple[str, float]]:
    """The `top_k` likeliest tokens, with probabilities, for the first [MASK] in `text`."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForMaskedLM.from_pretrained(model_dir).eval()
    batch = tokenizer(text, return_tensors="pt")
    position = (batch["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0, 0]
    with torch.inference_mode():
        probability = model(**batch).logits[0, position].float().softmax(-1)
    best = probability.topk(top_k)
    return [(tokenizer.convert_ids_to_tokens(int(index)), float(value))
            for value, index in zip(best.values, best.indices, strict=True)]


def continue_text(model_dir: str | Path, prompt: str, max_new_tokens: int = 60, temperature: float = 0.8,
                  top_p: float = 0.95, seed: int = 0) -> str:
    """`prompt` and a sampled continuation (nucleus sampling, Holtzman et al. 2020)."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir).eval()
    torch.manual_seed(seed)
    batch = tokenizer(prompt, return_tensors="pt")
    output = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=True, temperature=temperature,
                            top_p=top_p, pad_token_id=tokenizer.eos_token_id)
    return tokenizer.decode(output[0], skip_special_tokens=True)

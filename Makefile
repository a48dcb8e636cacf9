# `make` lists the most used targets, `make help-all` every one. CONFIG= names a YAML file, ARGS= adds --section.key value, NPROC= starts several processes.
# ARGS and RUNS are words of the shell, with its quotes; the other values arrive letter by letter, whatever is in them.
.DEFAULT_GOAL := help
.PHONY: help help-all install demo test test-slow test-faults test-hostile test-clients test-browser test-same test-versions lint clean \
        train-tokenizer evaluate-tokenizers show-batch pretrain-bert pretrain-gpt finetune-text finetune-series \
        finetune-seq2seq compare-seq2seq forecast \
        compare-text compare-series transfer word-vectors ablation fibonacci nano-gpt shakespeare-char sweep bench bench-gpu \
        bench-text bench-seq2seq bench-series bench-data forda-lab sample-forecasts card push \
        predict chat app attention runs compare-runs probe-bias report

BIN := .venv/bin
NPROC ?= 1
# Threads that wait spin briefly: see toolkit/openmp.py.
export GOMP_SPINCOUNT ?= 10000
CONFIG ?=
STEP ?= 0
ARGS ?=
# A $ in what the user gives is no variable, and nothing in it ends a word, or the command.
LITERAL := BASE CONFIG DIR FILE FORDA MODEL NANOGPT PAIRS REPO ROW RUN SERIES STEP TARGET TEXT
define newline


endef
$(foreach name,$(LITERAL),$(if $(findstring $(newline),$(value $(name))),$(error \
  $(name) has a line break in it, which make cannot pass on. Call the recipe itself: $(BIN)/python recipes/...)))
$(foreach name,$(LITERAL),$(eval override $(name) := $$(value $(name))))
quoted = '$(subst ','\'',$1)'
option = $(if $2,$1 $(call quoted,$2))
RECIPE_ARGS = $(call option,--config,$(CONFIG)) $(ARGS)
# accelerate's --cpu --num_processes starts one process only; --multi_gpu starts them all, on CPU too.
ifeq ($(NPROC),1)
LAUNCH := $(BIN)/python
else
LAUNCH := TOOLKIT_NPROC=$(NPROC) PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 PET_SHUTDOWN_TIMEOUT=110 \
          $(BIN)/accelerate launch --multi_gpu --num_machines 1 --num_processes $(NPROC) \
          --mixed_precision no --dynamo_backend no
endif

# At most 24 lines of at most 80 columns: what a small terminal shows at once.
define SCREEN
start here       demo             ten minutes, no network: what pretraining buys
                 nano-gpt         a minute: a tiny GPT learns to sort letters
your text        pretrain-bert    CONFIG=recipes/configs/bert-5min.yaml
                 pretrain-gpt     CONFIG=recipes/configs/gpt-5min.yaml
                 finetune-text    CONFIG=recipes/configs/authorship.yaml
                 finetune-seq2seq one text into another: dates → ISO, or files
                 chat             with a GPT of yours: MODEL=runs/gpt-5min
your signals     finetune-series  CONFIG=recipes/configs/gunpoint.yaml
                 forecast         CONFIG=recipes/configs/etth1.yaml
look             runs             the runs there are, with their main figures
                 report           one of them on one page: RUN=runs/demo
                 compare-runs     side by side, as a page: RUNS="runs/a runs/b"
                 predict          a model's answers to a file: MODEL=… FILE=…
                 app              ask it in the browser: MODEL=runs/demo/bert
                 attention        what it looks at: MODEL=… TEXT="…" or SERIES=…
publish          card             a run's README.md: RUN=runs/demo/bert
                 push             onto the hub: RUN=runs/demo/bert REPO=you/bert
measure          transfer         what a checkpoint is worth, by labels given
                 compare-text     what pretraining bought on your labelled texts
                 compare-series   the same on series

The other targets: make help-all    Options of one: make forecast ARGS=--help
endef
export SCREEN

help:  ## the most used of these
	@echo "$$SCREEN"

help-all:  ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F '\t' '{ line = sprintf("%-19s", $$1); \
	  count = split($$2, words, " "); for (i = 1; i <= count; i++) { \
	    if (length(line) + length(words[i]) > 79) { print line; line = sprintf("%19s", "") } \
	    line = line " " words[i] } print line }'

install: .venv/installed  ## make .venv with everything in it; does nothing when nothing changed

.venv/installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	@touch $@

demo: install  ## the whole way in about ten minutes: tokenizers, BERT, GPT, fine-tuning, what it bought
	@$(BIN)/python recipes/demo.py

test: install  ## the tests, in under ten minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install  ## the tests that take longer
	$(BIN)/python -m pytest -m slow

test-faults: install  ## kill, cut off and spoil runs in every way: nothing may be lost; writes runs/faults/faults.json
	$(BIN)/python -m pytest -m faults

test-hostile: install  ## fuzzers over every reader, and attacks, seeds fixed, in ten minutes; TRIES=10000: for hours
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m hostile -n 2 --no-loadscope-reorder --dist load

test-clients: install  ## others' libraries load our models: onnxruntime, peft, sentence-transformers, lm_eval, gensim
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[clients]'
	$(BIN)/python -m pytest -m clients

test-browser: install  ## pages in headless Chromium: scripts, widths, contrast, keyboard; needs chromium and chromedriver
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[browser]'
	$(BIN)/python -m pytest -m browser

test-same: install  ## does a change compute the same, to the bit? this tree against an earlier one: BASE=<commit>
	$(BIN)/python tests/same_results.py --base $(call quoted,$(or $(BASE),c7ce5e2)) $(ARGS)

test-versions: install  ## every torch and transformers that setup.cfg admits; ARGS=--suite: all tests, lowest and newest
	$(BIN)/python tests/versions.py $(ARGS)

lint: install  ## ruff
	$(BIN)/ruff check --line-length 120 --select E,F,W,I,UP,B \
	  --config 'lint.isort.known-third-party = ["tokenizers", "wandb"]' toolkit recipes tests

train-tokenizer: install  ## a tokenizer from a spec in tokenizers/: CONFIG=recipes/configs/tokenizer-books.yaml
	@$(BIN)/python recipes/train_tokenizer.py $(RECIPE_ARGS)

evaluate-tokenizers: install  ## bytes per token, fertility, unknowns, speed: specs, directories and hub ids side by side
	@$(BIN)/python recipes/evaluate_tokenizers.py $(RECIPE_ARGS)

show-batch: install  ## the batch a run sees at a step, of text or series: STEP=1000 CONFIG=recipes/configs/…
	@$(BIN)/python recipes/show_batch.py --step $(call quoted,$(STEP)) $(call option,--pretraining,$(CONFIG)) $(ARGS)

pretrain-bert: install  ## BERT from scratch: CONFIG=recipes/configs/bert-5min.yaml
	@$(LAUNCH) recipes/pretrain_bert.py $(RECIPE_ARGS)

pretrain-gpt: install  ## GPT from scratch: CONFIG=recipes/configs/gpt-5min.yaml
	@$(LAUNCH) recipes/pretrain_gpt.py $(RECIPE_ARGS)

sample-forecasts: install  ## forecasts of a GPT that learned series as tokens: medians, intervals, beside naive ones
	@$(BIN)/python recipes/sample_forecasts.py $(RECIPE_ARGS)

finetune-text: install  ## text classification beside its baselines: CONFIG=recipes/configs/authorship.yaml
	@$(LAUNCH) recipes/finetune_text.py $(RECIPE_ARGS)

finetune-seq2seq: install  ## one text into another: translate, normalise; without files dates in words → ISO
	@$(LAUNCH) recipes/finetune_seq2seq.py $(RECIPE_ARGS)

compare-seq2seq: install  ## what attention is worth, from which length on: Transformer, GRU with and without
	@$(LAUNCH) recipes/compare_seq2seq.py --config $(call quoted,$(or $(CONFIG),recipes/configs/compare-seq2seq.yaml)) $(ARGS)

compare-text: install  ## what pretraining bought on one labelled set: arms, seeds, learning curve, verdicts
	@$(LAUNCH) recipes/compare_text.py --config $(call quoted,$(or $(CONFIG),recipes/configs/compare-docstrings.yaml)) $(ARGS)

transfer: install  ## what a checkpoint is worth with 100, 400, 1,600 and all labels; quick: ARGS="--quick true"
	@$(LAUNCH) recipes/transfer.py --config $(call quoted,$(or $(CONFIG),recipes/configs/transfer.yaml)) $(ARGS)

word-vectors: install  ## word vectors of a corpus, their neighbours and analogies, for gensim or a model to start from
	@$(BIN)/python recipes/word_vectors.py --config $(call quoted,$(or $(CONFIG),recipes/configs/word-vectors.yaml)) $(ARGS)

ablation: install  ## what of the BERT recipe matters: each of its parts taken out, losses and probes side by side
	@$(LAUNCH) recipes/sweep.py --config recipes/configs/sweep-bert-start.yaml $(ARGS)

finetune-series: install  ## series classification beside its baselines: CONFIG=recipes/configs/gunpoint.yaml
	@$(LAUNCH) recipes/finetune_series.py $(RECIPE_ARGS)

forda-lab: install  ## is the Keras FordA transformer alive? attention taken out, equal sizes; FORDA=folder for your files
	@$(LAUNCH) recipes/forda_lab.py --config $(call quoted,$(or $(CONFIG),recipes/configs/forda-lab.yaml)) \
	  $(if $(FORDA),--forda $(call quoted,$(FORDA)) --output_dir runs/forda-lab/FordA) $(ARGS)

fibonacci: install  ## the lecture's lab: RNNs of 11 and 33 parameters, without and with attention, beside least squares
	@$(LAUNCH) recipes/fibonacci.py $(RECIPE_ARGS)

# With files beside the checkout the archive's sets and ETTh1; else generated series. MODEL= adds the arms pretrained on
# text, from that checkpoint. The commands are shown, so that what is compared is told.
SERIES_CONFIG = $(or $(CONFIG),$(if $(wildcard ../shared/data/ucr),recipes/configs/ucr.yaml))
compare-series: install  ## what pretraining, attention and a transformer at all are worth on series: arms, seeds, verdicts
	$(LAUNCH) recipes/compare_series.py $(call option,--config,$(SERIES_CONFIG)) \
	  $(call option,--text_model,$(MODEL)) $(ARGS)
	$(if $(CONFIG),,$(LAUNCH) recipes/forecast.py --output_dir runs/compare-series \
	  --config $(if $(wildcard ../shared/data/ett),recipes/configs/etth1.yaml,recipes/configs/forecast-mackey-glass.yaml))

forecast: install  ## forecasts beside linear and naive ones, with intervals: CONFIG=recipes/configs/etth1.yaml
	@$(LAUNCH) recipes/forecast.py --config $(call quoted,$(or $(CONFIG),recipes/configs/forecast-mackey-glass.yaml)) $(ARGS)

nano-gpt: install  ## a GPT of exactly 85,584 parameters learns to sort six letters, in about a minute
	@$(LAUNCH) recipes/nano_gpt.py $(RECIPE_ARGS)

shakespeare-char: install  ## nanoGPT's recipe for a CPU in an eighth of its time; needs ../shared/data or --text
	@$(LAUNCH) recipes/shakespeare_char.py --config $(call quoted,$(or $(CONFIG),recipes/configs/shakespeare-char.yaml)) $(ARGS)

sweep: install  ## settings of the optimiser side by side: CONFIG=recipes/configs/sweep-gpt-tiny.yaml
	@$(LAUNCH) recipes/sweep.py $(RECIPE_ARGS)

bench: install  ## our loop against transformers' Trainer, in turn; writes runs/bench/bench.json
	@$(BIN)/python recipes/bench.py $(RECIPE_ARGS)

bench-gpu: install  ## the same on one GPU in under eight minutes, and nanoGPT's own bench: NANOGPT=its checkout
	@$(BIN)/python recipes/bench_gpu.py $(call option,--nanogpt,$(NANOGPT)) $(RECIPE_ARGS)

bench-text: install  ## our fine-tuning against transformers' Trainer, in turn; writes runs/bench-text/bench.json
	@$(BIN)/python recipes/bench_text.py $(RECIPE_ARGS)

bench-seq2seq: install  ## our encoder–decoders against transformers' Seq2SeqTrainer; writes runs/bench-seq2seq/bench.json
	@$(BIN)/python recipes/bench_seq2seq.py $(RECIPE_ARGS)

bench-series: install  ## our training on series against transformers' Trainer; writes runs/bench-series/bench.json
	@$(BIN)/python recipes/bench_series.py $(RECIPE_ARGS)

bench-data: install  ## how fast corpora become batches, as ratios; writes runs/bench-data/bench.json
	@$(BIN)/python recipes/bench_data.py $(RECIPE_ARGS)

report: install  ## a run on one page, report.html, made again from its files: RUN=runs/demo
	@$(BIN)/python recipes/report.py $(call option,,$(RUN)) $(ARGS)

card: install  ## a run's README.md written anew: RUN=runs/demo/bert ARGS="--card.license apache-2.0"
	@$(BIN)/python recipes/card.py $(call option,,$(RUN)) $(ARGS)

push: install  ## a run onto the hub, private: RUN=runs/demo/bert REPO=you/little-bert; first: ARGS="--dry_run"
	@$(BIN)/python recipes/push_to_hub.py $(call option,--run,$(RUN)) $(call option,--repo,$(REPO)) $(ARGS)

predict: install  ## what a fine-tuned model answers to a file: classes, numbers, what comes after a table: MODEL=… FILE=…
	@$(BIN)/python recipes/predict.py $(call option,,$(MODEL)) $(call option,,$(FILE)) $(ARGS)

chat: install  ## write a text with a GPT, in turn: MODEL=runs/gpt-5min
	@$(BIN)/python recipes/chat.py $(call option,,$(MODEL)) $(ARGS)

app: install  ## ask a model in the browser, on this machine alone: MODEL=runs/demo/bert; installs gradio
	@$(if $(wildcard $(BIN)/../lib/python*/site-packages/gradio),,$(BIN)/python -m pip install --quiet \
	  --constraint constraints.txt --editable '.[app]' &&) $(BIN)/python recipes/app.py $(call option,,$(MODEL)) $(ARGS)

attention: install  ## a page of every head's map and entropy: MODEL=… TEXT="…", or SERIES=file ROW=3
	@$(BIN)/python recipes/attention.py $(call option,,$(MODEL)) $(if $(TEXT),--text=$(call quoted,$(TEXT))) \
	  $(if $(TARGET),--target=$(call quoted,$(TARGET))) $(call option,--series,$(SERIES)) $(call option,--row,$(ROW)) \
	  $(ARGS)

probe-bias: install  ## which of two sentences a model finds likelier: MODEL=runs/bert-5min, your own PAIRS=pairs.csv
	@$(BIN)/python recipes/probe_bias.py $(call option,,$(MODEL)) $(call option,--pairs,$(PAIRS)) $(ARGS)

runs: install  ## the runs there are: state, kind, main figure, age; ARGS=--wide for the rest; DIR=runs
	@$(BIN)/python recipes/list_runs.py $(call option,,$(DIR)) $(ARGS)

compare-runs: install  ## figures, curves and settings of runs side by side, as a page: RUNS="runs/a runs/b"
	@$(BIN)/python recipes/compare_runs.py $(RUNS) $(ARGS)

clean:  ## remove caches and build leftovers; runs/ and .venv/ stay
	rm -rf build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find toolkit recipes tests -name __pycache__ -type d -prune -exec rm -rf {} +

"""Ask a model in the browser, on this machine alone.

    make app MODEL=runs/demo/text/bert-pretrained/seed-0      # a text → classes, and the words that mattered
    make app MODEL=runs/demo/bert                             # [MASK] → words
    make app MODEL=runs/seq2seq/seed-0                        # one text into another, and where it looked
    make app MODEL=runs/demo/gpt                              # a prompt → continuations
    python recipes/app.py runs/etth1/nlinear/96/seed-0        # a table → what comes after its end, with its bands

MODEL is a directory, a run's directory or a hub id; of series classifiers and forecasters a table is uploaded. The
answers are those of predict, generate and fill_mask. Nobody else can reach the page, nothing leaves the machine, and
what was uploaded is deleted at the end. From another machine: ssh -L 7860:127.0.0.1:7860 HOST. The extra `app` is
needed: pip install 'pretraining-toolkit[app]'.
"""

from dataclasses import dataclass

from toolkit import cli, config


@dataclass
class AppConfig:
    model: str
    """A directory, a run's directory or a hub id."""
    port: int = 7860
    """Of 127.0.0.1."""


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(AppConfig, __doc__, ["model"])

from toolkit.app.serve import serve


def main(argv: list[str]) -> None:
    settings = config.parse(AppConfig, argv, __doc__, ["model"])
    serve(settings.model, settings.port)


if __name__ == "__main__":
    cli.run(main)

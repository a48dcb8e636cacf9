"""Write the card of a run anew, and say for it what only you can: licence, language, whose text it was.

    make card RUN=runs/demo/bert
    python recipes/card.py runs/demo/bert --card.license apache-2.0 --card.language en --card.speakers "…"

What is said is kept in the run's config.yaml, and stays until other is said. Everything else comes out of the run's
directory: README.md is what `make push` sends.
"""

from dataclasses import dataclass, field
from pathlib import Path

from toolkit import cli, config
from toolkit.run.model_card import CardConfig


@dataclass
class WriteCardConfig:
    run: str
    """The run directory, or that of one fit of an experiment."""
    card: CardConfig = field(default_factory=CardConfig)


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(WriteCardConfig, __doc__, ["run"])

from toolkit.publishing.card import regenerate, stated
from toolkit.publishing.card_facts import Facts
from toolkit.publishing.card_results import answer
from toolkit.report.ending import command, ending
from toolkit.run.directory import restate
from toolkit.run.files import disk_errors


def main(argv: list[str]) -> None:
    settings = config.parse(WriteCardConfig, argv, __doc__, ["run"])
    settings.card.check()
    facts = Facts.of(settings.run)
    said = {key: value for key, value in config.to_dict(settings.card).items() if value}
    with disk_errors(settings.run, "run"):
        if said:
            restate(facts.home, config.to_dict(stated(facts)) | said)
        regenerate(settings.run)
    following = command("make push", {"RUN": settings.run, "REPO": f"you/{Path(settings.run).resolve().name}"},
                        dry_run="true")
    print(ending(settings.run, following, answer(Facts.of(settings.run)) or "the card says what its files tell"))


if __name__ == "__main__":
    cli.run(main)

"""`asr-lab data prepare`: make, fetch or find a corpus."""

import typer


def prepare(
    name: str = typer.Argument(help="A corpus of conf/data, such as spoken_numbers or an4."),
) -> None:
    """Make or find a corpus and print its manifest and splits; says how to get it when it is not there."""
    from hydra import compose, initialize_config_dir

    from asr_lab import schema
    from asr_lab.build import make
    from asr_lab.paths import conf_dir
    from asr_lab.sweep.cell import register_resolvers, resolved

    schema.register()
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = resolved(compose("config", overrides=[f"data={name}"]))
    corpus = make(config, "data")
    corpus.check_audio()
    print(corpus.manifest)
    for split, utterances in corpus.splits.items():
        speakers = len({u.speaker for u in utterances})
        minutes = sum(u.duration for u in utterances) / 60
        print(f"{split:6} {len(utterances):7} utterances {minutes:8.1f} min {speakers:5} speakers")

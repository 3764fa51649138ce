"""`asr-lab data`: corpora, before anything is trained on them."""

import typer

from asr_lab.cli.data.cache import cache
from asr_lab.cli.data.check import check
from asr_lab.cli.data.export import export
from asr_lab.cli.data.import_ import import_
from asr_lab.cli.data.prepare import prepare
from asr_lab.cli.data.stats import stats


def add(app: typer.Typer) -> None:
    data = typer.Typer(help="Corpora: prepare, check, look at them.", no_args_is_help=True, rich_markup_mode=None)
    for command in (prepare, check, stats, export):
        data.command()(command)
    data.command("import")(import_)
    data.command()(cache)
    app.add_typer(data, name="data")

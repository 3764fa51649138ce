"""`asr-lab data cache`: what the feature cache holds, and making room."""

import typer


def cache(
    name: str = typer.Argument("", help="Only folders whose name begins so."),
    remove: bool = typer.Option(False, "--remove", help="Remove them; what is asked for again is computed again."),
    unused_days: float = typer.Option(0.0, help="Only those that no run has used for so many days."),
) -> None:
    """List the folders of the feature cache with their sizes; --remove makes room."""
    from asr_lab.data.cache import folders, remove_folder
    from asr_lab.data.store import readable
    from asr_lab.paths import cache_dir

    found = [f for f in folders() if f.name.startswith(name) and f.days_unused >= unused_days]
    for folder in found:
        print(f"{readable(folder.n_bytes):>8}  unused for {folder.days_unused:5.1f} days  {folder.name}")
        if remove:
            remove_folder(folder)
    total = sum(f.n_bytes for f in found)
    print(f"{readable(total):>8}  in {cache_dir() / 'features'}{', removed' if remove and found else ''}")

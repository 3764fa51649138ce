"""Hydra's and OmegaConf's messages as one line: which key, what came, what to do."""

import re
import sys

from asr_lab.errors import nearest

EXTRAS = ("joblib", "ray")  # launchers that other packages bring


def one_line(error: BaseException) -> str:
    text = str(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(match[1])
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, choice = match[1].rpartition("/")
        if group == "hydra/launcher" and choice in EXTRAS:
            return f"{group}={choice} is not installed: pip install 'asr-lab[{choice}]'"
        options = re.search(r"Available options in '[^']*':\n((?:\t.*\n?)+)", text)
        names = [o.strip() for o in options[1].split("\n") if o.strip()] if options else []
        names = [n for n in names if not n.startswith("_")]
        return f"{group}={choice}: no such choice{_hint(choice, names)}" if group else f"no config '{choice}'"
    if match := re.search(r"Cannot find primary config '([^']+)'", text):
        from asr_lab.cli.sweep import experiments

        return f"no experiment '{match[1]}'{nearest(match[1], experiments())}"
    first = text.split("Config search path", maxsplit=1)[0].split("\nSet the environment variable", maxsplit=1)[0]
    return " ".join(first.partition("expecting {")[0].partition("See https")[0].split())


def _hint(word: str, options: list[str]) -> str:
    hint = nearest(word, options)
    listed = ", ".join(sorted(options))
    return f"{hint} (choices: {listed})" if hint.startswith("; did you") else hint


def _unknown_key(key: str) -> str:
    """An unknown key with the nearest known ones, from the configuration that the other overrides compose."""
    try:
        known = _known_keys(sys.argv[1:], key)
    except Exception:  # a hint is not worth a second error
        known = []
    return f"{key}: no such key{nearest(key, known) if known else ''}; +{key}=VALUE would add a new one"


def _known_keys(argv: list[str], bad: str) -> list[str]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from asr_lab.paths import conf_dir

    bad_ones = (bad, "hydra", "-")
    groups = [
        a for a in argv if "=" in a and "," not in a and "." not in a.split("=")[0] and not a.startswith(bad_ones)
    ]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(_config_name(argv), overrides=groups)
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    return _dotted(plain) if "." in bad else [str(k) for k in plain]


def _config_name(argv: list[str]) -> str:
    """The primary configuration that Hydra's flags ask for."""
    for flag, value in zip(argv, [*argv[1:], ""], strict=True):
        if flag in ("--config-name", "-cn"):
            return value
        if flag.startswith("--config-name="):
            return flag.partition("=")[2]
    return "config"


def _dotted(node: dict, prefix: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, dict):
            keys += _dotted(value, f"{prefix}{key}.")
    return [k for k in keys if not k.rsplit(".", 1)[-1].startswith("_")]

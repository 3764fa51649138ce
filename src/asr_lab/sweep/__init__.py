"""From one YAML to many runs: the grid, its plan, its launcher. Hydra sees them through `hydra_plugins.asr_lab`."""

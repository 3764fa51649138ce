"""Long tests of sweeps: kills, full disks, a real scheduler."""

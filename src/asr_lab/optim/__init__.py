"""Parameter groups and schedules; the optimizers themselves come from torch.optim through conf/optimizer."""

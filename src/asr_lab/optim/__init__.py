"""Parameter groups and learning-rate schedules; the optimizers themselves come from torch.optim through conf/optimizer."""

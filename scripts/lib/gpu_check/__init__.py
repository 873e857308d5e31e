"""What scripts/gpu-check runs; the standard library only, but for in_torch.py and fork_probe.py."""

"""Several ranks: processes of one training run, on several GPUs or hosts."""

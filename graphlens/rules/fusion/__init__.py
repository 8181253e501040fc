"""What runs as several kernels and could be one."""

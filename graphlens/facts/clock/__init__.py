"""What a profile says of threads and devices: its steps, and what was running at each moment of them."""

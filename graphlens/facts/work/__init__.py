"""What ops have to do, in operations and bytes, and what the machine could do: costs, kernels, roof, memory."""

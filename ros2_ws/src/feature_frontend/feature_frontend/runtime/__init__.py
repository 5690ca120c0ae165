"""What frames run on: CUDA graphs, memory, queues, synchronisers, and how well it goes."""

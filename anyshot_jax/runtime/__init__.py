"""The machine: devices, start of JAX, FLOPs, memory."""

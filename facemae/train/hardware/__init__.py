"""What a run makes of the machine: device, precision, compiled blocks, memory, work."""

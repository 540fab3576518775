"""What runs the work: device, processes, random streams, progress."""

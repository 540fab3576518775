"""Training: the loop, the order of images, averages, snapshots."""

"""Folders in the layouts of public datasets: EuRoC, TUM RGB-D, KITTI."""

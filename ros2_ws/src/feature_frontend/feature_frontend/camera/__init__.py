"""Camera calibrations: lens models, calibration files, and normalised points."""

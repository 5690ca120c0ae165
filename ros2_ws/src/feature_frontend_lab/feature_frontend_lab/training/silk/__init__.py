"""SiLK, trained on images alone."""

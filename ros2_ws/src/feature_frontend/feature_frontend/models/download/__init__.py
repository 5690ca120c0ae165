"""Downloads that end: each answer in time, no more bytes than expected, every failure a `DownloadError`."""

"""Downloads with limits on time and size; every failure is a `DownloadError`."""

"""What sources of images share: bags in each storage, whole or damaged, and the rule for stamps."""

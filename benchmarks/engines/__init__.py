"""The engines under test: this project and its peers, each called as a user would call it."""

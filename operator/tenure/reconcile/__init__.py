"""The loop: dirty subjects and due instants -> evaluation -> findings -> diff -> the one status writer."""

"""What the operator tells of itself: metrics, health, Events, logs. Nothing here decides anything."""

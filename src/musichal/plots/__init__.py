"""Pictures of what was learned and of what happened."""

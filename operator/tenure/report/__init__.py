"""Commands for people and pipelines, with the user's own rights: the operator's evaluation read once, what waits for a
decision, and the commands that show what is decided and write the decision."""

"""The commands: `gar-run`, `gar-engine`, `gar-bench`. Only here are typer and rich imported."""

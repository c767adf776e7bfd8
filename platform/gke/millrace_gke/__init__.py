"""The Google Cloud side of a platform, from its environment. `program.build` is where to begin reading; it decides nothing."""

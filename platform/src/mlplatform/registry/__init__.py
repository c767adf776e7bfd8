"""The registry's permissions: what is there, what differs from the plan, and how it is brought there. `difference` is where to begin reading."""

"""Bringing a cluster to what a plan says, looking at it, and taking it away. `deploying.Deployment` is where to begin reading."""

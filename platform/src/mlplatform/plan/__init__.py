"""From an environment to what goes into the cluster, in which order: pure. `order.plan` is where to begin reading."""

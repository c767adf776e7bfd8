"""The one cluster that an environment is deployed to, through `kubectl` and `helm`: whatever way of signing in a kubeconfig names is understood."""

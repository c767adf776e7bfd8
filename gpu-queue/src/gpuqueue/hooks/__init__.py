"""What Helm asks at certain moments: whether the installation works (`installed`), whether it may go (`uninstall`)."""

"""Every server an app may run on: what each keeps of the address that a browser asked for."""

"""How fast a policy acts, on what share of the device, and what each setting costs or gains."""

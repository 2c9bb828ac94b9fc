"""Object stores: one small module each, one interface."""
